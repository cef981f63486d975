"""The S3 client: which server it talks to, which failures are worth waiting for, and what the others mean.

Everything comes from the environment: credentials as boto3 finds them, the endpoint from AWS_ENDPOINT_URL_S3,
AWS_ENDPOINT_URL or MLFLOW_S3_ENDPOINT_URL, the addressing style from RGSUD_S3_ADDRESSING (path, virtual, auto).
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from rgsud_lib.errors import ConfigError, DataError

ATTEMPTS = 3  # boto3's own, of each request; they bridge a second or two
CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 30.0  # seconds of silence; times ATTEMPTS, a server that hangs holds a request for a minute and a half
PATIENCE = 60.0  # seconds from the first failure after which nothing is begun again
LONGEST_PAUSE = 5.0
STYLES = ("path", "virtual", "auto")
BUSY = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ConditionalRequestConflict"}
LOST = {"NoSuchUpload", "BadDigest"}  # an answer that said "complete", or bytes, were lost on the way: begin again
ADVICE = {
    "NoSuchBucket": "there is no such bucket; check its name and the endpoint",
    "NoSuchKey": "the object is gone; was the prefix changed while it was read?",
    "404": "there is no such object; check the address",
    "AccessDenied": "access denied; the credentials may not list, read or write here",
    "403": "access denied; the key or its secret is wrong, or may not list, read or write here",
    "InvalidAccessKeyId": "the server does not know this access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not match the access key; check AWS_SECRET_ACCESS_KEY",
}
GONE = {"NoSuchKey", "404"}
logger = logging.getLogger("rgsud")
Result = TypeVar("Result")


class ObjectGone(DataError):
    """There is no such object."""


def is_remote(location: object) -> bool:
    return str(location).startswith("s3://")


def split(address: str) -> tuple[str, str]:
    """Bucket and key. Raises DataError where there is no bucket."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"{address!r} names no bucket; expected s3://bucket/prefix")
    return bucket, key


def endpoint() -> str | None:
    """The server's URL, None for Amazon's own."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def client() -> Any:
    """The client of the present environment. Raises ConfigError: unknown addressing style; DataError: no boto3."""
    url = endpoint()
    style = os.environ.get("RGSUD_S3_ADDRESSING") or ("path" if url else "auto")
    if style not in STYLES:
        raise ConfigError(f"RGSUD_S3_ADDRESSING={style!r}; choose one of {', '.join(STYLES)}")
    return _client(url, style)


@lru_cache(maxsize=4)
def _client(url: str | None, style: str) -> Any:
    """One S3 client an endpoint (clients are thread-safe)."""
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise DataError("s3:// locations need boto3; install it or give a local folder") from error
    # Amazon checks boto3's checksums; other servers may refuse them, and are asked for the ETag instead (transfer.py).
    checksums = "when_required" if url else "when_supported"
    settings = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, max_pool_connections=32,
        s3={"addressing_style": style},
        request_checksum_calculation=checksums, response_checksum_validation=checksums,
    )  # fmt: skip
    return boto3.session.Session().client("s3", endpoint_url=url, config=settings)


def patiently(address: str, action: Callable[[], Result]) -> Result:
    """The result of `action`, which is begun again after growing, jittered pauses while the server is away.

    Raises DataError that says what to do: refused, no credentials, or still away PATIENCE seconds after the first
    failure. By the clock: a server that hangs lets each request take long.
    """
    with explained(address):
        deadline, pauses = 0.0, 0
        while True:
            try:
                return action()
            except _failures() as error:
                if not _passing(error):
                    raise
                if pauses == 0:
                    deadline = time.monotonic() + PATIENCE
                    logger.warning(
                        "%s: the server does not answer (%s); trying on for %.0f s",
                        address, type(error).__name__, PATIENCE,
                    )  # fmt: skip
                if time.monotonic() >= deadline:
                    raise
                time.sleep(random.uniform(0.5, 1) * min(LONGEST_PAUSE, 0.5 * 2**pauses))
                pauses += 1


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn boto3's errors into DataErrors that say what to do; a secret is never part of them."""
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    where = f"{address} (endpoint {endpoint() or 'AWS'})"
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise DataError(f"{where}: no S3 credentials; {fix}") from error
    except ClientError as error:
        code = error_code(error)
        kind = ObjectGone if code in GONE else DataError
        raise kind(f"{where}: {ADVICE.get(code, f'the server refused with {code}')}") from error
    except _failures() as error:
        what = type(error).__name__
        raise DataError(f"{where}: cannot be reached ({what}); check AWS_ENDPOINT_URL and the network") from error


def error_code(error: Any) -> str:
    """The server's word for a botocore ClientError, such as NoSuchKey."""
    return error.response.get("Error", {}).get("Code", "unknown")


def _failures() -> tuple[type[Exception], ...]:
    """What boto3 raises where a request, or the transfer of a part, did not succeed."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError

    return BotoCoreError, ClientError, Boto3Error, RetriesExceededError


def _passing(error: Exception) -> bool:
    """Whether the same request may succeed later: the server is away or busy."""
    from botocore import exceptions
    from s3transfer.exceptions import RetriesExceededError

    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or error_code(error) in BUSY | LOST
    away = (
        exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError, RetriesExceededError
    )  # fmt: skip
    return isinstance(error, away) and not isinstance(error, exceptions.SSLError)
