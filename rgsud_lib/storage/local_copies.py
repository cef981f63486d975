"""Photographs in S3 for code that reads and writes folders: a copy that lives as long as a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from rgsud_lib.data.decode import SUFFIXES
from rgsud_lib.errors import DataError
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import list_files
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.storage.shards import check_name


@contextmanager
def local_source(location: str) -> Iterator[Path]:
    """The images of a folder or of an `s3://` prefix as a folder, or one image as a file. Raises DataError: none."""
    if not is_remote(location):
        yield Path(location)
        return
    with TemporaryDirectory(prefix="rgsud-") as scratch:
        if PurePosixPath(location).suffix.lower() in SUFFIXES:
            file = Path(scratch) / PurePosixPath(location).name
            transfer.download(location, file)
            yield file
            return
        images = [file for file in list_files(location) if PurePosixPath(file.name).suffix.lower() in SUFFIXES]
        if not images:
            raise DataError(f"{location} holds no images ({', '.join(SUFFIXES)})")
        for image in images:
            path = Path(scratch) / check_name(image.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            transfer.download(image.address, path)
        yield Path(scratch)


@contextmanager
def local_target(location: str, overwrite: bool) -> Iterator[Path]:
    """A path to write to; what was written goes to S3 at the end where `location` is an `s3://` prefix or image.

    Raises DataError where something is there already and `overwrite` is not set.
    """
    if not is_remote(location):
        yield Path(location)
        return
    address = location.rstrip("/")
    one = PurePosixPath(address).suffix.lower() in SUFFIXES
    if not overwrite and (transfer.read(address) if one else list_files(address)):
        raise DataError(f"{location} is not empty; choose another target or allow overwriting")
    with TemporaryDirectory(prefix="rgsud-") as scratch:
        target = Path(scratch) / PurePosixPath(address).name
        try:
            yield target
        finally:  # images that were finished before a failure stay, as they do in a folder
            for path in sorted(path for path in Path(scratch).rglob("[!.]*") if path.is_file()):
                name = "" if path == target else f"/{path.relative_to(target).as_posix()}"
                transfer.upload(path, f"{address}{name}")
