"""Patience by the clock: an outage is bridged, a server that hangs is given up in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from rgsud_lib.errors import DataError
from rgsud_lib.storage import s3, transfer


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(s3, "time", clock)
    return clock


@pytest.mark.parametrize("outage", [10, 20, 55])
def test_an_outage_of_less_than_a_minute_is_bridged(clock: Clock, outage: float) -> None:
    def answer() -> str:
        if clock.now < outage:
            raise EndpointConnectionError(endpoint_url="http://away")
        return "here"

    assert s3.patiently("s3://b/k", answer) == "here"


@pytest.mark.parametrize(("each", "expected"), [(0.1, 62), (50, 170), (300, 602)])
def test_the_minute_is_one_of_the_clock(clock: Clock, each: float, expected: float) -> None:
    def hang() -> None:
        clock.now += each
        raise ReadTimeoutError(endpoint_url="http://hangs")

    with pytest.raises(DataError, match="cannot be reached"):
        s3.patiently("s3://b/k", hang)
    assert 60 < clock.now < expected + s3.LONGEST_PAUSE


def test_the_minute_begins_with_the_first_failure(clock: Clock) -> None:
    """A transfer may well take an hour before the server is away for a moment."""
    failures = iter([3600.0])

    def answer() -> str:
        for seconds in failures:
            clock.now += seconds
            raise EndpointConnectionError(endpoint_url="http://away")
        return "here"

    assert s3.patiently("s3://b/k", answer) == "here"


def test_a_refusal_is_not_waited_for(clock: Clock) -> None:
    def refuse() -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "any")

    with pytest.raises(DataError, match="access denied"):
        s3.patiently("s3://b/k", refuse)
    assert clock.now == 0


@pytest.fixture
def silent_server(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield


def test_a_server_that_takes_connections_and_never_answers(silent_server: None, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT", 0.1)
    monkeypatch.setattr(s3, "PATIENCE", 0.3)
    (tmp_path / "file").write_text("x")
    start = time.monotonic()
    for action in (
        lambda: transfer.read("s3://b/k"),
        lambda: transfer.upload(tmp_path / "file", "s3://b/k"),
        lambda: transfer.download("s3://b/k", tmp_path / "back"),
    ):
        with pytest.raises(DataError, match="cannot be reached"):
            action()
    assert time.monotonic() - start < 10
