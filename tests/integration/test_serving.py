"""The service as a process: NVIDIA's client of the protocol, real sockets, and its end by SIGTERM."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from serving_process import ServingProcess
from tritonclient import http as triton

from rgsud_lib.config import DerainerConfig
from rgsud_lib.files import write_png
from rgsud_lib.inference import derain_image, load_derainer, save_derainer
from rgsud_lib.networks import build_derainer

pytestmark = pytest.mark.integration
SMALL = DerainerConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    derainer = build_derainer(SMALL)
    for parameter in derainer.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_derainer(derainer, SMALL, path)
    return path


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[ServingProcess]:
    settings = ("max_bytes=20000000", "max_pixels=4000000", "queue=8", "version=7")
    running = ServingProcess("--model", str(model), *(f"--set={item}" for item in settings), cwd=model.parent)
    yield running
    running.stop()


@pytest.fixture
def client(service: ServingProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.address.removeprefix("http://"), concurrency=2) as client:
        yield client


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((130, 101), Image.Resampling.BICUBIC))


def ask(client, name: str, values: np.ndarray, datatype: str, binary: tuple[bool, bool] = (True, True), **more):
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary[0])
    wanted = [triton.InferRequestedOutput("derained", binary_data=binary[1])]
    return client.infer("rgsud", [tensor], outputs=wanted, request_id="9", **more)


def test_the_public_client_finds_what_the_protocol_promises(client) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("rgsud") and client.is_model_ready("rgsud", "7")
    assert not client.is_model_ready("rgsud", "8")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    described = client.get_model_metadata("rgsud", "7")
    assert described["versions"] == ["7"]
    assert described["inputs"] == [{"name": "rainy", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]


@pytest.mark.parametrize("binary", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_the_public_client_gets_what_the_model_makes(client, model, image, datatype: str, binary) -> None:
    expected = derain_image(load_derainer(model), image, 512, 32)
    batch = np.stack([image, image[::-1]])
    values = batch if datatype == "UINT8" else (batch / 255).astype(np.float32).transpose(0, 3, 1, 2)
    answer = ask(client, "rainy", values, datatype, binary, model_version="7")
    found = answer.as_numpy("derained")
    assert (found.shape, found.dtype, answer.get_response()["id"]) == (values.shape, values.dtype, "9")
    first = found[0] if datatype == "UINT8" else np.rint(found[0].transpose(1, 2, 0) * 255)
    assert np.abs(first.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("binary", [True, False])
def test_the_public_client_sends_files(client, tmp_path, image, binary: bool) -> None:
    write_png(tmp_path / "a.png", image)
    data = (tmp_path / "a.png").read_bytes()
    values = np.array([data if binary else base64.b64encode(data)], dtype=np.object_)
    found = ask(client, "rainy", values, "BYTES", (binary, binary)).as_numpy("derained")
    raw = found[0] if binary else base64.b64decode(found[0])
    assert found.shape == (1,) and raw.startswith(b"\x89PNG")


def test_the_public_client_hears_why_not(client, image) -> None:
    with pytest.raises(triton.InferenceServerException, match=r"\[400\].*expected one, 'rainy'"):
        ask(client, "input", image[None], "UINT8")
    with pytest.raises(triton.InferenceServerException, match=r"\[413\].*at most max_pixels=4000000"):
        ask(client, "rainy", np.zeros((1, 2000, 2001, 3), np.uint8), "UINT8")


def test_hostile_bodies_over_real_sockets_and_a_healthy_service_after(service, image, tmp_path) -> None:
    write_png(tmp_path / "a.png", image)
    good = (tmp_path / "a.png").read_bytes()
    with httpx.Client(base_url=service.address, timeout=120) as client:
        for body, status in ((b"", 400), (b"text", 415), (good[:-500], 422), (bytes(20_000_001), 413)):
            answer = client.post("/derain", content=body)
            assert (answer.status_code, list(answer.json())) == (status, ["error"])
        form = client.post("/derain", files={"image": good + bytes(3_000_000)})
        assert form.status_code == 200, "a large form stays in memory: the process may not write"
    host, port = service.address.removeprefix("http://").split(":")
    for junk in (
        b"\x00\xff" * 500,
        b"GET / HTTP/1.1\r\n" + b"x" * 200_000,
        b"POST /derain HTTP/1.1\r\nContent-Length: 9\r\n\r\nx",
    ):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(junk)
    with httpx.Client(base_url=service.address, timeout=120) as client:
        assert client.post("/derain", content=good).status_code == 200
        metrics = client.get("/metrics").text
    assert service.process.poll() is None and not any("Traceback" in line for line in service.log), service.log
    assert "rgsud_requests_under_way 0.0" in metrics or "rgsud_requests_under_way 1.0" in metrics


def test_many_at_once_are_answered_or_told_to_come_again(service, image, tmp_path) -> None:
    write_png(tmp_path / "a.png", image)
    data = (tmp_path / "a.png").read_bytes()

    def post(_: int) -> httpx.Response:
        return httpx.post(f"{service.address}/derain", content=data, timeout=120)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(post, range(72)))
    statuses = {answer.status_code for answer in answers}
    assert 200 in statuses <= {200, 503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 503)


def test_sigterm_finishes_what_is_under_way_and_exits_with_0(model) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (800, 1000, 3), dtype=np.uint8)).save(buffer, "PNG")
    running = ServingProcess("--model", str(model), "--set", "notice_seconds=5", cwd=model.parent)
    try:
        with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=running.address, timeout=120) as client:
            under_way = pool.submit(client.post, "/derain", content=buffer.getvalue())
            while "rgsud_requests_under_way 1.0" not in client.get("/metrics").text:
                assert not under_way.done(), under_way.result().text
                time.sleep(0.02)
            os.kill(running.process.pid, signal.SIGTERM)
            while client.get("/v2/health/ready").status_code == 200:
                time.sleep(0.02)
            assert client.get("/v2/health/live").status_code == 200, "others hear of it before the door closes"
            assert under_way.result().status_code == 200
        assert running.wait() == 0
        assert running.log[-1] == "every request was answered\n"
    finally:
        running.stop()
