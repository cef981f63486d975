"""Published weights: found by path, `s3://bucket/key` or `hf://owner/repository[@revision]/path`, checked, read safely.

What is in Hugging Face's cache is used without asking the network; otherwise one short attempt is made.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
from torch import Tensor

from rgsud_lib.errors import BundleError, DataError
from rgsud_lib.storage.listing import SourceFile
from rgsud_lib.storage.s3 import is_remote

HUB_TIMEOUT = 10  # seconds for the hub to answer
SHOWN = 5  # keys of each kind that a message names


@dataclass(frozen=True)
class Weights:
    """A state dict on the CPU, with where it came from and the SHA-256 of its file."""

    tensors: dict[str, Tensor]
    address: str
    sha256: str

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises BundleError naming the keys that are missing, unknown or of another shape than `expected`."""
        faults = [
            ("missing", sorted(expected.keys() - self.tensors.keys())),
            ("unknown", sorted(self.tensors.keys() - expected.keys())),
            ("of another shape", [
                f"{key} {tuple(self.tensors[key].shape)} instead of {shape}"
                for key, shape in expected.items()
                if key in self.tensors and self.tensors[key].shape != shape
            ]),
        ]  # fmt: skip
        if any(keys for _, keys in faults):
            said = "; ".join(f"{len(keys)} {what}: {_shortened(keys)}" for what, keys in faults if keys)
            raise BundleError(
                f"{self.address} does not fit the model ({len(self.tensors)} keys, {len(expected)} expected): {said}; "
                "does the file belong to this architecture?"
            )


def read_weights(address: str, sha256: str, setting: str) -> Weights:
    """The state dict of a `.safetensors` file or of a `torch.save` file that holds nothing but data.

    A `state_dict` entry is unwrapped and `module.` before a key dropped. `sha256` may be empty: then a file from
    the hub is compared with what the hub states. `setting` is the dotted name of the setting behind `address`.
    Raises BundleError: not there, altered, unreadable, or it would run code.
    """
    place_it = f"get the file by other means and give its path: --set {setting}=/path/to/{PurePosixPath(address).name}"
    file, stated = _open(address, place_it)
    with file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if (sha256 or stated or found).lower() != found:
            raise BundleError(
                f"{address} has SHA-256 {found}, expected {sha256 or stated}: it is damaged or another file; "
                f"{place_it}" + (f", or correct {setting.rpartition('.')[0]}.sha256" if sha256 else "")
            )
        file.seek(0)
        return Weights(_state_dict(file, address), address, found)


def _open(address: str, place_it: str) -> tuple[BinaryIO, str]:
    """The file, and the SHA-256 that its origin states (empty: none)."""
    if is_remote(address):
        try:
            return io.BytesIO(SourceFile(address, address, 0).read()), ""
        except DataError as error:
            raise BundleError(f"cannot get weights: {error}; or {place_it}") from error
    path, stated = _from_hub(address, place_it) if address.startswith("hf://") else (Path(address).expanduser(), "")
    try:
        return open(path, "rb"), stated
    except OSError as error:
        raise BundleError(f"cannot read weights at {path.absolute()}: {error.strerror}; {place_it}") from error


def _from_hub(address: str, place_it: str) -> tuple[Path, str]:
    """The file in Hugging Face's cache, downloaded if need be, and its LFS SHA-256: the cache names blobs by it."""
    if not (parts := re.fullmatch(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", address)):
        raise BundleError(f"{address!r} names no file; expected hf://owner/repository[@revision]/path")
    repository, revision, name = parts.groups()
    try:
        import huggingface_hub as hub
    except ModuleNotFoundError as error:
        raise BundleError(f"{address} needs huggingface_hub; install it, or {place_it}") from error
    path = hub.try_to_load_from_cache(repository, name, revision=revision)
    if not isinstance(path, str):
        url = hub.hf_hub_url(repository, name, revision=revision)
        try:
            # Asked first because a failing download would try again for minutes.
            hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT)
            path = hub.hf_hub_download(repository, name, revision=revision)
        except Exception as error:  # the errors of three HTTP libraries, depending on the hub's version
            reason = next(iter(str(error).splitlines()), "")
            raise BundleError(
                f"cannot get weights {name} of {repository} (revision {revision or 'main'}): they are not in the cache "
                f"{hub.constants.HF_HUB_CACHE}, and {url} fails ({type(error).__name__}: {reason}); {place_it}"
            ) from error
    blob = Path(path).resolve()
    return blob, blob.name if re.fullmatch(r"[0-9a-f]{64}", blob.name) else ""


def _state_dict(file: BinaryIO, address: str) -> dict[str, Tensor]:
    try:
        if address.endswith(".safetensors"):
            from safetensors.torch import load

            content = load(file.read())
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any part of the reader
        raise BundleError(
            f"{address} cannot be read safely ({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); "
            "expected .safetensors, or a state dict written by torch.save"
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        kind = f"the entries {_shortened(sorted(map(str, content)))}" if isinstance(content, dict) else type(content)
        raise BundleError(f"{address} holds {kind}; expected a state dict (names to tensors), maybe under 'state_dict'")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
