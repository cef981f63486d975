"""Files that are either whole or absent: write beside, flush to disk, rename."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CHECKPOINT = ".checkpoint"  # in a stage's folder: working state, hidden, so no part of the bundle


def write_bytes(path: Path, data: bytes) -> None:
    """Atomic and durable: after a crash `path` holds the old bytes or the new ones, never a part."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """`write_bytes` of indented JSON with sorted keys."""
    write_bytes(path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def write_png(path: Path, image: np.ndarray) -> None:
    """`write_bytes` of a uint8 H x W x 3 image without loss; quick rather than small."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    write_bytes(path, buffer.getvalue())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_file(source: Path | str, target: Path | str) -> None:
    """Make the absent file `target` a copy of `source`; a hard link where the file system allows."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def link_tree(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source` without its hidden files; `target` is never half of it.

    Hard links where the file system allows, so bytes lie once.
    """

    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside, copy_function=link_file, ignore=shutil.ignore_patterns(".*"))
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
