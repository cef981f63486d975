"""What stages exchange: a folder with its payload and, written last, `bundle.json`.

A folder without `bundle.json` is unfinished; one whose files differ from it is refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rgsud_lib import __version__
from rgsud_lib.config import digest_of
from rgsud_lib.errors import BundleError
from rgsud_lib.files import sha256_file, write_json

SCHEMA = 1
MARKER = "bundle.json"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: `digest` covers every file's name and bytes, `inputs` the bundles it was made from."""

    path: Path
    kind: str
    digest: str
    config_digest: str
    inputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    code_version: str = __version__
    schema: int = SCHEMA


def seal(
    folder: Path,
    kind: str,
    config_digest: str,
    inputs: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
) -> Bundle:
    """Declare `folder` complete: digest all files (hidden ones left out) and write `bundle.json`."""
    files = {name: sha256_file(folder / name) for name in _payload(folder)}
    bundle = Bundle(folder, kind, digest_of(files), config_digest, inputs or {}, facts or {}, files)
    write_json(folder / MARKER, {key: value for key, value in asdict(bundle).items() if key != "path"})
    return bundle


def is_sealed(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def open_bundle(folder: Path, kind: str | None = None) -> Bundle:
    """Open and verify. Raises BundleError: no bundle, another kind or schema, a file missing or altered."""
    if not is_sealed(folder):
        raise BundleError(f"{folder} is not a finished bundle ({MARKER} is missing); run the stage that makes it first")
    try:
        document = json.loads((folder / MARKER).read_text())
        bundle = Bundle(path=folder, **document)
    except (json.JSONDecodeError, TypeError) as error:
        raise BundleError(
            f"{folder / MARKER} cannot be read ({error}); delete the folder and run its stage again"
        ) from None
    if bundle.schema != SCHEMA:
        raise BundleError(
            f"{folder} has bundle schema {bundle.schema}, this version reads {SCHEMA}; run its stage again"
        )
    if kind is not None and bundle.kind != kind:
        raise BundleError(
            f"{folder} holds a {bundle.kind!r} bundle, expected {kind!r}; give the folder of the right stage"
        )
    for name, expected in bundle.files.items():
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name} is missing from its bundle; delete the folder and run its stage again")
        if sha256_file(folder / name) != expected:
            raise BundleError(
                f"{folder / name} was altered after it was written (SHA-256 differs from {MARKER}); "
                "delete the folder and run its stage again"
            )
    return bundle


def _payload(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path.as_posix()
        for path in paths
        if path.name != MARKER and not any(part.startswith(".") for part in path.parts)
    ]
