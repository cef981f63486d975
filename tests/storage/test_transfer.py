"""Transfers: what arrives is what was sent or an error, whatever happens on the way."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.files import sha256_file
from rgsud_lib.storage import s3, transfer

PART = 5 * 2**20  # the smallest that S3 takes
SECRET = "not-for-anybodys-eyes"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART", PART)


def keys(bucket: str) -> list[str]:
    return [file.name for file in transfer.list_objects(bucket)]


def put(address: str, data: bytes, **more: object) -> None:
    bucket, key = s3.split(address)
    s3.client().put_object(Bucket=bucket, Key=key, Body=data, **more)


@pytest.mark.parametrize("size", [0, 5, PART - 1, PART, 2 * PART + 3])
def test_a_file_comes_back_as_it_was(s3_bucket: str, tmp_path: Path, size: int) -> None:
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(os.urandom(size))
    digest = transfer.upload(file, f"{s3_bucket}/a/b")
    transfer.download(f"{s3_bucket}/a/b", back)
    assert digest == sha256_file(file) == sha256_file(back)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "file"]


def test_a_large_file_that_is_there_is_not_sent_again(s3_bucket: str, tmp_path: Path, on_request) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(PART + 1))
    transfer.upload(file, f"{s3_bucket}/a")
    on_request("before-send.s3.UploadPart", lambda **_: pytest.fail("sent again"))
    transfer.upload(file, f"{s3_bucket}/a")


def test_altered_bytes_are_refused_by_name_and_leave_no_file(s3_bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"right")
    digest = transfer.upload(file, f"{s3_bucket}/a")
    put(f"{s3_bucket}/a", b"wrong", Metadata={"sha256": digest})
    for expected in ("", digest):
        with pytest.raises(BundleError, match=f"{s3_bucket}/a was altered"):
            transfer.download(f"{s3_bucket}/a", tmp_path / "back", expected)
    with pytest.raises(BundleError, match="file was altered after it was written"):
        transfer.upload(file, f"{s3_bucket}/a", "0" * 64)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("size", [5, PART + 1])
def test_bytes_that_change_on_their_way_up_are_noticed_and_removed(s3_bucket, tmp_path, size: int, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    right = transfer.Fingerprint.of(file)
    wrong = transfer.Fingerprint(right.size, right.sha256, "0" * 32)
    monkeypatch.setattr(transfer.Fingerprint, "of", lambda path: wrong)
    with pytest.raises(BundleError, match=f"{s3_bucket}/a arrived altered"):
        transfer.upload(file, f"{s3_bucket}/a")
    assert keys(s3_bucket) == []


def test_an_upload_that_breaks_off_leaves_no_object(s3_bucket: str, tmp_path: Path, on_request) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(2 * PART))

    def break_off(request, **_: object) -> None:
        if "partNumber=2" in request.url:
            raise KeyboardInterrupt

    on_request("before-send.s3.UploadPart", break_off)
    with pytest.raises(BaseException):  # noqa: B017 (what the transfer manager makes of it)
        transfer.upload(file, f"{s3_bucket}/a")
    assert keys(s3_bucket) == []


def test_a_server_that_comes_back_is_waited_for(s3_bucket: str, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(s3, "LONGEST_PAUSE", 0.3)
    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3 * PART))
    again = ThreadedMotoServer(port=port)

    def stop_once(**_: object) -> None:
        if not stopped.is_set():
            stopped.set()
            server.stop()
            threading.Timer(1.5, again.start).start()

    stopped = threading.Event()
    s3.client().meta.events.register("before-send.s3.UploadPart", stop_once)
    transfer.upload(file, f"{s3_bucket}/a")
    again.stop()
    assert "the server does not answer" in caplog.text and stopped.is_set()
    monkeypatch.setattr(s3, "PATIENCE", 0.5)
    with pytest.raises(DataError, match="cannot be reached"):
        transfer.read(f"{s3_bucket}/a")


def test_one_of_many_creates(s3_bucket: str) -> None:
    won: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: won.append(n) if transfer.create(f"{s3_bucket}/lock", str(n).encode()) else None
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and transfer.read(f"{s3_bucket}/lock") == str(won[0]).encode()


def test_who_created_it_although_the_answer_was_lost_is_told_so(s3_bucket: str, monkeypatch, on_request) -> None:
    monkeypatch.setattr(s3, "LONGEST_PAUSE", 0.01)
    lost: list[bool] = []

    def lose_the_first_answer(**_: object) -> None:
        if not lost:
            lost.append(True)
            raise ClientError({"Error": {"Code": "InternalError"}}, "PutObject")

    on_request("after-call.s3.PutObject", lose_the_first_answer)
    assert transfer.create(f"{s3_bucket}/lock", b"ours") and lost
    assert not transfer.create(f"{s3_bucket}/lock", b"theirs")


def test_an_upload_whose_completion_was_not_heard_of_is_complete(s3_bucket, tmp_path, monkeypatch, on_request) -> None:
    monkeypatch.setattr(s3, "LONGEST_PAUSE", 0.01)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(PART + 1))
    lost: list[bool] = []

    def lose(**_: object) -> None:
        lost.append(True)
        raise ClientError({"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "any")

    on_request("after-call.s3.CompleteMultipartUpload", lose)
    assert transfer.upload(file, f"{s3_bucket}/a") == sha256_file(file) and lost == [True]


def test_small_objects(s3_bucket: str) -> None:
    assert transfer.read(f"{s3_bucket}/x") is None
    for value in (b"old", b"new"):
        transfer.write(f"{s3_bucket}/x", value)
        assert transfer.read(f"{s3_bucket}/x") == value
    for key in ("p/a", "p/b/c", "pp"):
        transfer.write(f"{s3_bucket}/{key}", b"")
    transfer.delete_below(f"{s3_bucket}/p")
    assert keys(s3_bucket) == ["pp", "x"]
    with pytest.raises(DataError, match="there is no such bucket"):
        transfer.read("s3://nowhere/x")


def test_a_wrong_secret_is_an_error_at_once_and_not_shown(s3_bucket: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    s3._client.cache_clear()

    def refuse(**_: object) -> None:
        answer = {"Error": {"Code": "SignatureDoesNotMatch"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(answer, "any")

    s3.client().meta.events.register("before-call.s3", refuse)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(PART + 1))
    for action in (
        lambda: transfer.upload(file, f"{s3_bucket}/a"),
        lambda: transfer.download(f"{s3_bucket}/a", file),
        lambda: transfer.create(f"{s3_bucket}/a", b""),
    ):
        with pytest.raises(DataError, match="check AWS_SECRET_ACCESS_KEY") as caught:
            action()
        assert SECRET not in str(caught.value)
    s3._client.cache_clear()


def test_the_bucket_in_the_path_or_in_the_host_name(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://objects.example.com")
    for style in ("path", "virtual"):
        monkeypatch.setenv("RGSUD_S3_ADDRESSING", style)
        url = s3.client().generate_presigned_url("get_object", {"Bucket": "images", "Key": "x"})
        hosts[style] = url.removeprefix("http://").split("?")[0]
    assert hosts["path"].endswith("/images/x") and not hosts["path"].startswith("images.")
    assert hosts["virtual"].startswith("images.")
    monkeypatch.setenv("RGSUD_S3_ADDRESSING", "host")
    with pytest.raises(ConfigError, match="RGSUD_S3_ADDRESSING='host'; choose one of path, virtual, auto"):
        s3.client()
