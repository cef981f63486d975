"""Files and small objects to and from S3: whole or not at all, checked after the way, patient with the server.

Large files go in parts through s3transfer, so that memory stays bounded. What arrived is proved by its
ETag (the MD5 of the parts) on the way up and by its SHA-256, kept as metadata, on the way down.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rgsud_lib.errors import BundleError
from rgsud_lib.files import sha256_file
from rgsud_lib.storage import s3
from rgsud_lib.storage.listing import list_objects

PART = 16 * 2**20  # bytes; a larger file is sent in parts of this size
THREADS = 8  # parts, or small objects, under way at once


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a file's bytes: here by `sha256`, on the server by `size` and `etag`."""

    size: int
    sha256: str
    etag: str

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Read a file once."""
        whole, parts = hashlib.sha256(), []
        with open(path, "rb") as file:
            while part := file.read(PART):
                whole.update(part)
                parts.append(hashlib.md5(part, usedforsecurity=False))
        if path.stat().st_size >= PART:
            joined = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False)
            etag = f"{joined.hexdigest()}-{len(parts)}"
        else:
            etag = parts[0].hexdigest() if parts else hashlib.md5(usedforsecurity=False).hexdigest()
        return cls(path.stat().st_size, whole.hexdigest(), etag)


def upload(path: Path, address: str, sha256: str = "") -> str:
    """Make the object at `address` equal to a file; a large one that is so already is not sent. Returns its SHA-256.

    Raises DataError: refused or unreachable; BundleError: the file has not the SHA-256 that was given, or other bytes
    arrived than were sent (the object is removed then).
    """
    expected = Fingerprint.of(path)
    if sha256 not in ("", expected.sha256):
        raise BundleError(f"{path} was altered after it was written; is another process at work in its folder?")
    send = _send_at_once if expected.size < PART else _send_in_parts
    if not _same(s3.patiently(address, lambda: send(path, address, expected)), expected):
        delete([address])
        raise BundleError(f"{address} arrived altered (size or ETag differs from {path}); run the same command again")
    return expected.sha256


def download(address: str, path: Path, sha256: str = "") -> None:
    """Make `path` equal to an object, whose SHA-256 must be the one given, or else the one its metadata states.

    Raises DataError: gone, refused or unreachable; BundleError: other bytes than were once written.
    """
    bucket, key = s3.split(address)
    beside = path.with_name(f".{path.name}.partial")

    def receive() -> None:
        with _manager() as manager:
            manager.download(bucket, key, str(beside)).result()

    try:
        s3.patiently(address, receive)
        expected = sha256 or (_head(address) or {}).get("Metadata", {}).get("sha256")
        found = sha256_file(beside)
        if expected not in (None, found):
            raise BundleError(
                f"{address} was altered after it was written (SHA-256 {found[:16]}…, expected {expected[:16]}…); "
                "delete it and run the stage that makes it again"
            )
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read(address: str) -> bytes | None:
    """A small object's bytes, None where there is none."""
    bucket, key = s3.split(address)

    def get() -> bytes | None:
        try:
            return s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        except s3.client().exceptions.NoSuchKey:
            return None

    return s3.patiently(address, get)


def write(address: str, data: bytes) -> None:
    """Create or replace a small object by one PUT: a reader sees the old bytes or the new ones."""
    bucket, key = s3.split(address)
    s3.patiently(address, lambda: s3.client().put_object(Bucket=bucket, Key=key, Body=data))


def create(address: str, data: bytes) -> bool:
    """Create a small object; False where there is one already. Of any number of racing callers one gets True."""
    from botocore.exceptions import ClientError

    bucket, key = s3.split(address)
    writer = uuid.uuid4().hex

    def put() -> bool:
        try:
            s3.client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={"writer": writer})
        except ClientError as error:
            if s3.error_code(error) not in ("PreconditionFailed", "412"):
                raise
            # Ours, where the answer to an earlier attempt was lost on its way back.
            return s3.client().head_object(Bucket=bucket, Key=key)["Metadata"].get("writer") == writer
        return True

    return s3.patiently(address, put)


def delete(addresses: Iterable[str]) -> None:
    """Remove objects; those that are gone already are no error."""
    # One by one: the bulk request needs a checksum that not every server knows.
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(_delete, addresses):
            pass


def delete_below(address: str) -> None:
    """Remove every object under a prefix."""
    delete(file.address for file in list_objects(address))


def _send_at_once(path: Path, address: str, expected: Fingerprint) -> dict[str, Any]:
    bucket, key = s3.split(address)
    about = {"Metadata": {"sha256": expected.sha256}}
    with open(path, "rb") as file:
        answer = s3.client().put_object(Bucket=bucket, Key=key, Body=file, **about)
    return answer | about | {"ContentLength": expected.size}


def _send_in_parts(path: Path, address: str, expected: Fingerprint) -> dict[str, Any]:
    head = _head(address)
    if head is not None and _same(head, expected):
        return head  # sent before
    bucket, key = s3.split(address)
    with _manager() as manager:
        manager.upload(str(path), bucket, key, {"Metadata": {"sha256": expected.sha256}}).result()
    return s3.client().head_object(Bucket=bucket, Key=key)


def _delete(address: str) -> None:
    bucket, key = s3.split(address)
    s3.patiently(address, lambda: s3.client().delete_object(Bucket=bucket, Key=key))


def _head(address: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    bucket, key = s3.split(address)

    def head() -> dict[str, Any] | None:
        try:
            return s3.client().head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if s3.error_code(error) not in ("404", "NoSuchKey"):
                raise
            return None

    return s3.patiently(address, head)


def _same(head: dict[str, Any], expected: Fingerprint) -> bool:
    """Whether the server holds the bytes: what it stored under our metadata has the size and the MD5 we expect."""
    # With a key of one's own the ETag is no MD5; only Amazon does that, and it has checked boto3's own checksums.
    opaque = head.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in head
    return (
        head["ContentLength"] == expected.size
        and head["Metadata"].get("sha256") == expected.sha256
        and (opaque or head["ETag"].strip('"') == expected.etag)
    )


def _manager() -> Any:
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    config = TransferConfig(PART, multipart_chunksize=PART, max_concurrency=THREADS, num_download_attempts=2)
    return create_transfer_manager(s3.client(), config)
