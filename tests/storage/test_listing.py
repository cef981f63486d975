from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import boto3
import pytest

from rgsud_lib.data.prepare import source_digest
from rgsud_lib.errors import DataError
from rgsud_lib.storage import listing, s3

SECRET = "not-for-anybodys-eyes"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("AWS_") or name == "MLFLOW_S3_ENDPOINT_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setattr(s3, "PATIENCE", 0)
    s3._client.cache_clear()
    yield
    s3._client.cache_clear()


@pytest.fixture
def bucket(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", moto_server)
    credentials(monkeypatch)
    client = boto3.client("s3", endpoint_url=moto_server)
    client.create_bucket(Bucket="images")
    for key in ("rain/b.png", "rain/a.png", "rain/sub/c.png", "rain/.hidden/d.png", "rainy/e.png", "clean/f.png"):
        client.put_object(Bucket="images", Key=key, Body=key.encode())
    client.put_object(Bucket="images", Key="rain/folder/", Body=b"")
    return "s3://images"


def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def test_local_files_are_sorted_and_visible(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", ".hidden/x.png", "a/.y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    files = listing.list_files(str(tmp_path))
    assert [(file.name, file.read()) for file in files] == [("a/c.png", b"a/c.png"), ("b.png", b"b.png")]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    (file,) = listing.list_files(str(tmp_path))
    assert file.name == "\\xff.png" and file.read() == b"x"


def test_s3_listing_and_reading(bucket: str) -> None:
    for location in (f"{bucket}/rain", f"{bucket}/rain/"):
        files = listing.list_files(location)
        assert [file.name for file in files] == ["a.png", "b.png", "sub/c.png"]
        assert files[2].read() == b"rain/sub/c.png" and files[2].size == 14
    assert len(listing.list_files(bucket)) == 5
    assert listing.canonical(f"{bucket}/rain/") == f"{bucket}/rain"


def test_digest_follows_the_content(bucket: str, moto_server: str) -> None:
    before = source_digest(f"{bucket}/rain", f"{bucket}/clean", None)
    client = boto3.client("s3", endpoint_url=moto_server)
    client.put_object(Bucket="images", Key="rain/a.png", Body=b"rain/a.png")
    assert source_digest(f"{bucket}/rain/", f"{bucket}/clean", None) == before
    client.put_object(Bucket="images", Key="rain/a.png", Body=b"changed")
    assert source_digest(f"{bucket}/rain", f"{bucket}/clean", None) != before


def test_missing_things(bucket: str) -> None:
    with pytest.raises(DataError, match="s3://nowhere/rain .*there is no such bucket"):
        listing.list_files("s3://nowhere/rain")
    with pytest.raises(DataError, match="the object is gone"):
        listing.SourceFile("x", f"{bucket}/rain/x", 1, "tag").read()
    with pytest.raises(DataError, match="names no bucket"):
        listing.list_files("s3://")
    with pytest.raises(DataError, match=r"no images in the clean folder s3://images/empty \(found nothing\)"):
        source_digest(f"{bucket}/rain", f"{bucket}/empty", None)
    with pytest.raises(DataError, match="the same folder"):
        source_digest(f"{bucket}/rain", f"{bucket}/rain/", None)


def test_no_credentials(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    with pytest.raises(DataError, match="no S3 credentials; set AWS_ACCESS_KEY_ID"):
        listing.list_files("s3://images/rain")


@pytest.mark.parametrize(("code", "advice"), [
    ("SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"), ("InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
    ("AccessDenied", "access denied"), ("SomethingNew", "refused with SomethingNew"),
])  # fmt: skip
def test_refusals_are_explained_without_the_secret(code: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Refuse) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing.server_port}")
        credentials(monkeypatch)
        with pytest.raises(DataError, match=advice) as caught:
            listing.list_files("s3://images/rain")
        refusing.shutdown()
    assert SECRET not in str(caught.value)


def test_unreachable_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed_soon:
        port = closed_soon.server_port
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    credentials(monkeypatch)
    with pytest.raises(DataError, match="cannot be reached .*check AWS_ENDPOINT_URL"):
        listing.list_files("s3://images/rain")
