"""Published weights are found, checked and read safely, or the message says where to put them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file

from rgsud_lib.errors import BundleError
from rgsud_lib.rewards.weights import Weights, read_weights
from rgsud_lib.storage import s3

SETTING = "scorers.daclip.checkpoint"
COMMIT = "c" * 40
TENSORS = {"first.weight": torch.arange(6.0).view(2, 3), "second": torch.ones(4)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache; no hub can be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    reach(monkeypatch, "http://127.0.0.1:9")
    return tmp_path / "hub"


def reach(monkeypatch: pytest.MonkeyPatch, hub: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub + "/{repo_id}/resolve/{revision}/{filename}")


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for `owner/repository`, any revision, `weights/model.safetensors`."""

    body = save(TENSORS)
    stated = hashlib.sha256(body).hexdigest()
    asked: list[str] = []

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        there = self.path.startswith("/owner/repository/") and self.path.endswith("/weights/model.safetensors")
        self.send_response(200 if there else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.stated}"')
        self.send_header("Content-Length", str(len(self.body) if there else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[Hub]], None]]:
    servers = []

    def start(handler: type[Hub]) -> None:
        servers.append(HTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        reach(monkeypatch, f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def read(address: object, sha256: str = "") -> Weights:
    return read_weights(str(address), sha256, SETTING)


def same(weights: Weights) -> bool:
    return weights.tensors.keys() == TENSORS.keys() and all(
        torch.equal(weights.tensors[key], value) for key, value in TENSORS.items()
    )


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3},
        {f"module.{key}": value for key, value in TENSORS.items()},
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in TENSORS.items()}},
    ],
    ids=["plain", "wrapped", "module", "wrapped module"],
)
def test_a_state_dict_is_unwrapped(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "model.pt")
    weights = read(tmp_path / "model.pt")
    assert same(weights)
    assert weights.sha256 == hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert same(read(tmp_path / "model.safetensors"))


def test_the_home_folder_may_be_abbreviated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(TENSORS, tmp_path / "model.pt")
    assert same(read("~/model.pt"))


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        read(tmp_path / "model.pt")
    assert f"{tmp_path}/model.pt: No such file" in str(caught.value)
    assert f"--set {SETTING}=/path/to/model.pt" in str(caught.value)


def test_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "model.pt")
    found = hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()
    assert same(read(tmp_path / "model.pt", found.upper()))
    with pytest.raises(BundleError, match=f"has SHA-256 {found}, expected {'0' * 64}.*scorers.daclip.sha256"):
        read(tmp_path / "model.pt", "0" * 64)


class Trap:
    """Unpickled without care this would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "trap": Trap(tmp_path / "sprung")}, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="model.pt cannot be read safely"):
        read(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 150])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    save_file(TENSORS, tmp_path / name) if name.endswith("tensors") else torch.save(TENSORS, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(BundleError, match=f"{name} cannot be read safely"):
        read(tmp_path / name)


@pytest.mark.parametrize("content", [{"model": TENSORS, "epoch": 3}, [torch.ones(2)]])
def test_anything_but_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="expected a state dict"):
        read(tmp_path / "model.pt")


def test_misfitting_keys_are_named(tmp_path: Path) -> None:
    weights = Weights(TENSORS, "model.pt", "")
    weights.check({"first.weight": (2, 3), "second": (4,)})
    with pytest.raises(BundleError) as caught:
        weights.check({"first.weight": (3, 2), "third": (4,), **{f"layer{index}": () for index in range(9)}})
    assert "first.weight (2, 3) instead of (3, 2)" in str(caught.value)
    assert "1 unknown: second" in str(caught.value)
    assert "10 missing: layer0, layer1, layer2, layer3, layer4 and 5 more" in str(caught.value)


def test_the_hub_is_asked_only_while_the_cache_lacks_the_file_and_its_digest_checked(
    serve: Callable, cache: Path
) -> None:
    class Counted(Hub):
        asked: list[str] = []

    serve(Counted)
    weights = read("hf://owner/repository@v1.0/weights/model.safetensors")
    assert same(weights)
    assert weights.sha256 == Hub.stated
    assert any("/resolve/v1.0/" in line for line in Counted.asked)
    Counted.asked.clear()
    assert same(read("hf://owner/repository@v1.0/weights/model.safetensors"))
    assert Counted.asked == []
    blob = cache / "models--owner--repository" / "blobs" / Hub.stated
    blob.write_bytes(save({**TENSORS, "second": torch.zeros(4)}))
    with pytest.raises(BundleError, match=f"expected {Hub.stated}: it is damaged"):
        read("hf://owner/repository@v1.0/weights/model.safetensors")


def test_the_main_revision_is_the_default(serve: Callable) -> None:
    class Counted(Hub):
        asked: list[str] = []

    serve(Counted)
    assert same(read("hf://owner/repository/weights/model.safetensors"))
    assert any("/resolve/main/" in line for line in Counted.asked)


def test_a_hub_that_states_another_digest_is_not_trusted(serve: Callable) -> None:
    class Lying(Hub):
        stated = "a" * 64

    serve(Lying)
    with pytest.raises(BundleError, match=f"has SHA-256 {Hub.stated}, expected {'a' * 64}"):
        read("hf://owner/repository/weights/model.safetensors")


@pytest.mark.parametrize("why", ["offline", "unreachable", "not there"])
def test_without_the_file_the_hub_is_tried_once(
    why: str, serve: Callable, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counted(Hub):
        asked: list[str] = []

    if why != "unreachable":
        serve(Counted)
    if why == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(BundleError) as caught:
        read("hf://owner/repository@v1.0/weights/absent.pt")
    assert time.monotonic() - started < 5
    assert len(Counted.asked) == (why == "not there")
    message = str(caught.value)
    assert "weights/absent.pt of owner/repository (revision v1.0)" in message
    assert str(cache) in message
    assert "/owner/repository/resolve/v1.0/weights/absent.pt" in message
    assert f"--set {SETTING}=/path/to/absent.pt" in message
    if why == "offline":
        assert "HF_HUB_OFFLINE" in message


@pytest.mark.parametrize("address", ["hf://model.pt", "hf://owner/repository", "hf://owner/repository@v1"])
def test_an_address_without_a_file_is_explained(address: str) -> None:
    with pytest.raises(BundleError, match=r"expected hf://owner/repository\[@revision\]/path"):
        read(address)


def test_s3_objects_are_read_like_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto import mock_aws

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        s3._client.cache_clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key="iqa/model.safetensors", Body=save(TENSORS))
        assert same(read("s3://models/iqa/model.safetensors", Hub.stated))
        with pytest.raises(BundleError, match="s3://models/iqa/absent.pt .* --set scorers.daclip.checkpoint="):
            read("s3://models/iqa/absent.pt")
    s3._client.cache_clear()
