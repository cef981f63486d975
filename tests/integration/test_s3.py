"""A real S3 server (Ceph's radosgw): parts, races, an outage in the middle, a wrong secret."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rgsud_lib.bundle import seal
from rgsud_lib.errors import DataError
from rgsud_lib.storage import remote, s3, transfer

pytestmark = pytest.mark.integration
SIZE = 5 * transfer.PART + 17


@pytest.fixture
def bucket(s3_server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "cache"))
    s3._client.cache_clear()
    name = f"rgsud-{os.urandom(4).hex()}"
    s3.client().create_bucket(Bucket=name)
    yield f"s3://{name}"
    s3._client.cache_clear()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_a_file_of_many_parts_comes_back_and_is_not_sent_twice(bucket: str, large: Path, tmp_path: Path) -> None:
    digest = transfer.upload(large, f"{bucket}/large")
    head = s3.client().head_object(Bucket=bucket[5:], Key="large")
    assert head["ETag"].endswith('-6"') and head["Metadata"]["sha256"] == digest
    transfer.upload(large, f"{bucket}/large")
    assert s3.client().head_object(Bucket=bucket[5:], Key="large")["LastModified"] == head["LastModified"]
    transfer.download(f"{bucket}/large", tmp_path / "back", digest)
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


def test_of_twelve_that_create_one_succeeds(bucket: str) -> None:
    won: list[int] = []
    start = threading.Barrier(12)

    def race(number: int) -> None:
        start.wait()
        if transfer.create(f"{bucket}/lock", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and transfer.read(f"{bucket}/lock") == str(won[0]).encode()


@pytest.mark.parametrize(("way", "request_name"), [("up", "UploadPart"), ("down", "GetObject")])
def test_a_server_that_is_killed_for_ten_seconds_delays_a_transfer(
    s3_server, bucket: str, large: Path, tmp_path: Path, way: str, request_name: str
) -> None:
    if way == "down":
        transfer.upload(large, f"{bucket}/large")
    begun = itertools.count(1)
    back = threading.Timer(10, s3_server.start)

    def kill_at_the_third_part(**_: object) -> None:
        if next(begun) == 3:
            s3_server.stop()
            back.start()

    s3.client().meta.events.register(f"before-send.s3.{request_name}", kill_at_the_third_part)
    start = time.monotonic()
    if way == "up":
        transfer.upload(large, f"{bucket}/large")
    else:
        transfer.download(f"{bucket}/large", tmp_path / "back")
    assert time.monotonic() - start > 9
    back.join()
    s3._client.cache_clear()
    transfer.download(f"{bucket}/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


def test_a_bundle_goes_there_and_back(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path, deliver) -> None:
        for number in range(30):
            (folder / "images").mkdir(exist_ok=True)
            (folder / "images" / f"{number}.png").write_bytes(os.urandom(100_000))
        (folder / "report.html").write_text("<html></html>")
        seal(folder, "dataset", "c")
        deliver()

    address = remote.finish(f"{bucket}/runs/stages/prepare-1", "dataset", make)
    made = remote.pulled(address)
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "another-node"))
    fetched = remote.pulled(address)
    assert fetched != made and [path.read_bytes() for path in sorted(made.rglob("*.*"))] == [
        path.read_bytes() for path in sorted(fetched.rglob("*.*"))
    ]


@pytest.mark.parametrize("work", ["read", "write", "upload"])
def test_a_wrong_secret_is_named_as_such_and_not_shown(bucket: str, large: Path, work: str, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-anybodys-eyes")
    s3._client.cache_clear()
    actions = {
        "read": lambda: transfer.read(f"{bucket}/x"),
        "write": lambda: transfer.write(f"{bucket}/x", b""),
        "upload": lambda: transfer.upload(large, f"{bucket}/x"),
    }
    with pytest.raises(DataError, match="secret .*(does not match|is wrong)") as caught:
        actions[work]()
    assert "not-for-anybodys-eyes" not in str(caught.value)


def test_the_bucket_as_a_host_name(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **named: resolve(host.rpartition(".")[2], *rest, **named)
    )
    port = os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{port}")
    monkeypatch.setenv("RGSUD_S3_ADDRESSING", "virtual")
    transfer.write(f"{bucket}/virtual", b"hosted")
    assert transfer.read(f"{bucket}/virtual") == b"hosted"
