"""Where images come from: a local folder or an `s3://bucket/prefix`, listed and read the same way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rgsud_lib.errors import DataError
from rgsud_lib.files import sha256_file
from rgsud_lib.storage import s3
from rgsud_lib.storage.s3 import is_remote


@dataclass(frozen=True)
class SourceFile:
    """One file under a location: `name` is its relative POSIX path, `address` a local path or an `s3://` URL.

    `tag` changes with an S3 object's content (its ETag and size) and is empty for a local file; `modified` is an
    S3 object's time of writing (Unix).
    """

    name: str
    address: str
    size: int
    tag: str = ""
    modified: float = 0.0

    def read(self) -> bytes:
        """All bytes. Raises DataError: unreadable, gone, no permission."""
        if is_remote(self.address):
            bucket, key = s3.split(self.address)
            return s3.patiently(
                self.address, lambda: s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
            )  # fmt: skip
        try:
            return Path(self.address).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {self.address}: {error.strerror}") from error

    def digest(self) -> str:
        """Identity of the content: SHA-256 of a local file, ETag and size of an S3 object (nothing is downloaded)."""
        if self.tag:
            return self.tag
        try:
            return sha256_file(Path(self.address))
        except OSError as error:
            raise DataError(f"cannot read {self.address}: {error.strerror}") from error


def canonical(location: str | Path) -> str:
    """The location without symbolic links, `..` or a trailing slash: equal for two spellings of one folder."""
    return str(location).rstrip("/") if is_remote(location) else os.path.realpath(os.path.expanduser(location))


def list_files(location: str) -> list[SourceFile]:
    """All files under a folder or prefix, sorted by name; hidden ones (any part starting with `.`) left out.

    Raises DataError: no such folder or bucket, no credentials, refused, unreachable.
    """
    files = list_objects(location) if is_remote(location) else _list_local(Path(location).expanduser())
    visible = (file for file in files if not any(part.startswith(".") for part in PurePosixPath(file.name).parts))
    return sorted(visible, key=lambda file: file.name)


def list_objects(location: str) -> Iterable[SourceFile]:
    """All objects under a prefix, hidden ones too."""
    bucket, prefix = s3.split(location)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""

    def listing() -> list[SourceFile]:
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [
            SourceFile(
                item["Key"][len(prefix) :], f"s3://{bucket}/{item['Key']}", item["Size"],
                tag=f"{item['ETag'].strip(chr(34))}-{item['Size']}", modified=item["LastModified"].timestamp(),
            )
            for page in pages
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]  # fmt: skip

    return s3.patiently(location, listing)


def _list_local(root: Path) -> Iterator[SourceFile]:
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}; expected a folder of images or s3://bucket/prefix")
    seen: set[str] = set()  # linked folders are followed, a loop of links is not
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                # A name that is no UTF-8 must still fit into JSON and HTML.
                readable = os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
                yield SourceFile(readable, str(path), path.stat().st_size)
