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
    """An opened bundle: `digest` covers every file's name and bytes, `inputs` the bundles it was made from.

    `settings` are the sections of the configuration that `config_digest` digests. `cost` (`cost.spent`) differs from
    run to run: no digest covers it, so that equal work makes equal bundles.
    """

    path: Path | str
    kind: str
    digest: str
    config_digest: str
    inputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    code_version: str = __version__
    schema: int = SCHEMA
    settings: dict[str, Any] = field(default_factory=dict)
    cost: list[dict[str, Any]] = field(default_factory=list)


def seal(
    folder: Path,
    kind: str,
    config_digest: str,
    inputs: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
    **about: Any,
) -> Bundle:
    """Declare `folder` complete: digest all files but hidden ones, write `bundle.json`; `about`: settings, cost."""
    files = {name: sha256_file(folder / name) for name in payload(folder)}
    bundle = Bundle(folder, kind, digest_of(files), config_digest, inputs or {}, facts or {}, files, **about)
    write_marker(folder, bundle)
    return bundle


def write_marker(folder: Path, bundle: Bundle) -> None:
    """Write `bundle.json`: the same bytes for the same bundle."""
    write_json(folder / MARKER, {key: value for key, value in asdict(bundle).items() if key != "path"})


def is_sealed(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def open_bundle(folder: Path, kind: str | None = None) -> Bundle:
    """Open and verify. Raises BundleError: no bundle, another kind or schema, a file missing or altered."""
    if not is_sealed(folder):
        raise BundleError(f"{folder} is not a finished bundle ({MARKER} is missing); run the stage that makes it first")
    bundle = parse_bundle((folder / MARKER).read_bytes(), folder, kind)
    for name, expected in bundle.files.items():
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name} is missing from its bundle; delete the folder and run its stage again")
        if sha256_file(folder / name) != expected:
            raise BundleError(
                f"{folder / name} was altered after it was written (SHA-256 differs from {MARKER}); "
                "delete the folder and run its stage again"
            )
    return bundle


def parse_bundle(document: bytes, where: Path | str, kind: str | None = None) -> Bundle:
    """The bundle that the `bundle.json` of a folder, or of an `s3://` address, describes; no other file is read.

    Raises BundleError: unreadable, another kind or schema.
    """
    try:
        bundle = Bundle(path=where, **json.loads(document))
    except (ValueError, TypeError) as error:
        raise BundleError(
            f"{where}/{MARKER} cannot be read ({error}); delete the folder and run its stage again"
        ) from None
    if bundle.schema != SCHEMA:
        raise BundleError(
            f"{where} has bundle schema {bundle.schema}, this version reads {SCHEMA}; run its stage again"
        )
    if kind is not None and bundle.kind != kind:
        raise BundleError(
            f"{where} holds a {bundle.kind!r} bundle, expected {kind!r}; give the folder of the right stage"
        )
    return bundle


def payload(folder: Path) -> list[str]:
    """The names of a bundle's files: all that are not hidden, without `bundle.json`."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path.as_posix()
        for path in paths
        if path.name != MARKER and not any(part.startswith(".") for part in path.parts)
    ]
