"""Where images come from: a local folder or an `s3://bucket/prefix`, listed and read the same way.

S3 credentials come from the environment as boto3 finds them; the endpoint from AWS_ENDPOINT_URL or
MLFLOW_S3_ENDPOINT_URL (any S3-compatible server; path-style addresses are used there).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from rgsud_lib.errors import DataError
from rgsud_lib.files import sha256_file

ATTEMPTS = 5  # of each S3 request, with growing pauses


@dataclass(frozen=True)
class SourceFile:
    """One file under a location: `name` is its relative POSIX path, `address` a local path or an `s3://` URL.

    `tag` changes with an S3 object's content (its ETag and size) and is empty for a local file.
    """

    name: str
    address: str
    size: int
    tag: str = ""

    def read(self) -> bytes:
        """All bytes. Raises DataError: unreadable, gone, no permission."""
        if is_remote(self.address):
            bucket, key = _split(self.address)
            with _explained(self.address):
                return _client(_endpoint()).get_object(Bucket=bucket, Key=key)["Body"].read()
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


def is_remote(location: str) -> bool:
    return str(location).startswith("s3://")


def canonical(location: str) -> str:
    """The location without symbolic links, `..` or a trailing slash: equal for two spellings of one folder."""
    return str(location).rstrip("/") if is_remote(location) else os.path.realpath(os.path.expanduser(location))


def list_files(location: str) -> list[SourceFile]:
    """All files under a folder or prefix, sorted by name; hidden ones (any part starting with `.`) left out.

    Raises DataError: no such folder or bucket, no credentials, refused, unreachable.
    """
    files = _list_s3(location) if is_remote(location) else _list_local(Path(location).expanduser())
    visible = (file for file in files if not any(part.startswith(".") for part in PurePosixPath(file.name).parts))
    return sorted(visible, key=lambda file: file.name)


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


def _list_s3(location: str) -> Iterator[SourceFile]:
    bucket, prefix = _split(location)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    with _explained(location):
        pages = _client(_endpoint()).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in (item for page in pages for item in page.get("Contents", [])):
            if not item["Key"].endswith("/"):
                tag = f"{item['ETag'].strip(chr(34))}-{item['Size']}"
                yield SourceFile(item["Key"][len(prefix) :], f"s3://{bucket}/{item['Key']}", item["Size"], tag)


def _split(address: str) -> tuple[str, str]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"{address!r} names no bucket; expected s3://bucket/prefix")
    return bucket, key


def _endpoint() -> str | None:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


@lru_cache(maxsize=4)
def _client(endpoint: str | None) -> Any:
    """One S3 client an endpoint (clients are thread-safe)."""
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise DataError("s3:// locations need boto3; install it or give a local folder") from error
    style = {"addressing_style": "path"} if endpoint else {}
    retries = {"mode": "standard", "max_attempts": ATTEMPTS}
    settings = Config(retries=retries, connect_timeout=10, read_timeout=60, s3=style, max_pool_connections=32)
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=settings)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn botocore's errors into DataErrors that say what to do; a secret is never part of them."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    where = f"{address} (endpoint {_endpoint() or 'AWS'})"
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise DataError(f"{where}: no S3 credentials; {fix}") from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise DataError(f"{where}: {_ADVICE.get(code, f'the server refused with {code}')}") from error
    except BotoCoreError as error:
        what = type(error).__name__
        raise DataError(f"{where}: cannot be reached ({what}); check AWS_ENDPOINT_URL and the network") from error


_ADVICE = {
    "NoSuchBucket": "there is no such bucket; check its name and the endpoint",
    "NoSuchKey": "the object is gone; was the prefix changed while it was read?",
    "404": "there is no such object; check the address",
    "AccessDenied": "access denied; the credentials may not list or read here",
    "403": "access denied; the credentials may not list or read here",
    "InvalidAccessKeyId": "the server does not know this access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not match the access key; check AWS_SECRET_ACCESS_KEY",
}
