"""Every address over ASGI: what is answered, what is refused with which words, and that the service lives on."""

from __future__ import annotations

import asyncio
import io
import json
import re
import struct
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms
from starlette.testclient import TestClient

from rgsud_lib.errors import BundleError

from .conftest import picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def client(make_app):
    with TestClient(make_app()[0]) as client:
        yield client


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(("form", "kind"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("TIFF", "png")])
def test_an_image_comes_back_derained_in_its_format_with_its_profile(client, form, kind) -> None:
    answer = client.post("/derain", content=picture(form=form, icc_profile=SRGB))
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind}")
    image = opened(answer.content)
    assert image.size == (20, 10)
    assert abs(image.getpixel((15, 5))[0] - (128 - 25.5)) <= 2, "a tenth darker"
    assert image.info["icc_profile"] == SRGB


def test_alpha_depth_and_grey_are_kept(client) -> None:
    for mode, kept in (("RGBA", "RGBA"), ("L", "L"), ("I;16", "I;16")):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (99, 99, 99)).convert(mode if mode != "I;16" else "L").convert(mode).save(
            buffer, "PNG"
        )
        answer = client.post("/derain?scores=true", content=buffer.getvalue())
        assert (answer.status_code, opened(answer.content).mode) == (200, kept)
    refused = client.post("/derain?format=jpeg", content=transparent())
    assert (refused.status_code, "no transparency" in refused.json()["error"]) == (422, True)


def transparent() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 30), (99, 99, 99, 50)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_form_a_chosen_format_and_scores(client) -> None:
    files = {"image": ("rain.png", picture(64, 64), "image/png")}
    answer = client.post("/derain?format=webp&scores=true", files=files, data={"note": "x"})
    assert (answer.status_code, opened(answer.content).format) == (200, "WEBP")
    scores = json.loads(answer.headers["Rgsud-Scores"])
    assert set(scores) == {"decorrelation", "rain_layer", "piqe"} and scores["decorrelation"][0] == -1
    tiny = client.post("/derain?scores=true", content=picture(3, 3))
    assert json.loads(tiny.headers["Rgsud-Scores"]) == {}
    assert client.post("/derain", content=picture(1, 1)).status_code == 200


def bomb() -> bytes:
    """A PNG of 30000 x 30000 pixels in less than a megabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(30000 * 3751), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def corrupt() -> bytes:
    data = bytearray(picture(64, 64, value=77))
    data[60:70] = b"\0" * 10
    return bytes(data)


HOSTILE = {
    "wrong type": (b"%PDF-1.7 no image", 415, "not an image: no PNG, JPEG, WebP, BMP or TIFF starts with b'%PDF-1.7'"),
    "gif": (b"GIF89a" + bytes(30), 415, "not an image"),
    "empty": (b"", 400, "empty file: 0 bytes"),
    "truncated": (picture(200, 200, "JPEG")[:700], 422, "damaged image"),
    "corrupt": (corrupt(), 422, "damaged image"),
    "bomb": (bomb(), 413, "too many pixels"),
    "too many pixels": (picture(1001, 1000), 413, "1001x1000 is more than max_pixels=1000000"),
    "oversized": (bytes(2_000_001), 413, "2000001 bytes or more, at most max_bytes=2000000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_are_refused_in_words_and_the_service_lives(make_app, name: str) -> None:
    body, status, words = HOSTILE[name]
    with TestClient(make_app("max_pixels=1000000", "max_bytes=2000000")[0]) as client:
        answer = client.post("/derain", content=body)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert words in answer.json()["error"]
        assert client.post("/derain", content=picture()).status_code == 200
        assert client.get("/v2/health/ready").status_code == 200


def test_a_body_is_counted_while_it_arrives(make_app) -> None:
    sent = 0

    async def endless(start: bytes = b""):
        nonlocal sent
        yield start
        while True:
            sent += 1000
            yield bytes(1000)

    async def run() -> None:
        transport = httpx.ASGITransport(make_app("max_bytes=4096")[0])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.post("/derain", content=endless())).status_code == 413
            assert sent == 5000
            form = {"content-type": "multipart/form-data; boundary=b"}
            start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            assert (await client.post("/derain", content=endless(start), headers=form)).status_code == 413

    asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "options", "status", "words"),
    [
        ("/derain?format=gif", {"content": picture()}, 400, "expected one of png, jpeg, webp, tiff"),
        ("/derain", {"files": {"a": b"1", "b": b"2"}}, 400, "one file"),
        ("/derain", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "multipart"),
        ("/derain", {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "file"),
        ("/derain", {"content": picture(), "headers": {"content-encoding": "gzip"}}, 415, "Content-Encoding 'gzip'"),
        ("/v2/models/other/infer", {"content": b"{}"}, 404, "there is 'rgsud', version"),
        ("/v2/models/rgsud/versions/9/infer", {"content": b"{}"}, 404, "no model 'rgsud', version '9'"),
        ("/nowhere", {}, 404, "POST /nowhere: not found"),
        ("/v2", {}, 405, "method not allowed"),
    ],
)
def test_what_else_is_refused(client, address, options, status, words) -> None:
    answer = client.post(address, **options)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_health_metadata_and_metrics(make_app) -> None:
    app, service = make_app("version=3")
    with TestClient(app) as client:
        assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
        for base in ("/v2/models/rgsud", "/v2/models/rgsud/versions/3"):
            described = client.get(base).json()
            assert (described["name"], described["versions"]) == ("rgsud", ["3"])
            assert client.get(f"{base}/ready").status_code == 200
        client.post("/derain", content=picture())
        service.ready = False
        for address, status in (("/v2/health/live", 200), ("/v2/health/ready", 503), ("/v2/models/rgsud/ready", 503)):
            assert client.get(address).status_code == status
        assert client.post("/derain", content=picture()).status_code == 200, "it is still taken while that gets about"
        metrics = client.get("/metrics").text
    assert 'rgsud_requests_total{route="/derain",status="200"} 2.0' in metrics
    assert "rgsud_images_total 2.0" in metrics and "rgsud_pixels_total 400.0" in metrics
    assert "rgsud_ready 0.0" in metrics and 'version="3"' in metrics and "process_resident_memory_bytes" in metrics


def test_routes_in_metrics_are_of_the_table_whatever_is_asked(client) -> None:
    for index in range(5):
        client.get(f"/v2/models/{index}")
        client.get(f"/{index}")
    routes = set(re.findall(r'rgsud_requests_total{route="([^"]*)"', client.get("/metrics").text))
    assert routes == {"/v2/models/{name}", "none"}


def test_a_failure_of_ours_is_no_secret_of_ours(make_app) -> None:
    with TestClient(make_app()[0], raise_server_exceptions=False) as client:
        answer = client.post("/v2/models/rgsud/infer", json=tensor(np.ones((1, 3, 2, 2))))
        assert (answer.status_code, answer.json()) == (500, {"error": "the service failed; its log says why"})
        assert client.post("/derain", content=picture()).status_code == 200


def tensor(values: np.ndarray) -> dict[str, object]:
    one = {"name": "rainy", "shape": list(values.shape), "datatype": "FP32", "data": values.ravel().tolist()}
    return {"inputs": [one]}


def test_other_weights_than_those_that_were_asked_for_are_not_served(make_app) -> None:
    with pytest.raises(BundleError, match="digest 0123456789abcdef, expected weights_digest=abc"):
        make_app("weights_digest=abc")


async def _until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_full_queue_says_when_to_come_again(make_app, model) -> None:
    app, service = make_app("queue=2")

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            model.go.clear()
            under_way = [asyncio.create_task(client.post("/derain", content=picture())) for _ in range(2)]
            await _until(lambda: model.shapes and service.metrics.under_way._value.get() == 2)
            refused = await client.post("/derain", content=picture())
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert "all 2 places (queue) are taken" in refused.json()["error"]
            assert (await client.get("/v2/health/live")).status_code == 200, "the loop is not held up"
            model.go.set()
            assert [(await answer).status_code for answer in under_way] == [200, 200]
            assert (await client.post("/derain", content=picture())).status_code == 200

    asyncio.run(run())


def test_what_takes_too_long_is_given_up_within_a_tile(make_app, model) -> None:
    app, _ = make_app("timeout_seconds=0.2", "tile=64", "overlap=0")

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            model.go.clear()
            answer = await client.post("/derain", content=picture(640, 64))
            assert (answer.status_code, "not done within 0.2 s" in answer.json()["error"]) == (504, True)
            model.go.set()
            assert (await client.post("/derain", content=picture())).status_code == 200
            assert len(model.shapes) == 2, "nine tiles of the first were not computed for nobody"

    asyncio.run(run())


def test_a_body_that_dawdles_is_refused_and_a_client_that_leaves_is_dropped(make_app, model) -> None:
    app, service = make_app("receive_seconds=0.1")

    async def dawdle():
        yield b"x"
        await asyncio.sleep(5)

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            answer = await client.post("/derain", content=dawdle())
            assert (answer.status_code, "only 1 bytes arrived" in answer.json()["error"]) == (408, True)
            model.go.clear()
            left = asyncio.create_task(_leave(app, picture()))
            await _until(lambda: model.shapes)
            await asyncio.wait_for(left, 5)
            assert service.metrics.under_way._value.get() == 0
            model.go.set()
            assert (await client.post("/derain", content=picture())).status_code == 200

    asyncio.run(run())
    sample = service.metrics.registry.get_sample_value
    assert sample("rgsud_requests_total", {"route": "/derain", "status": "499"}) == 1


async def _leave(app, body: bytes) -> None:
    """A client that goes away once it has sent its image."""
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

    async def receive():
        if len(messages) == 1:
            await asyncio.sleep(0.2)
        return messages.pop(0)

    async def send(_) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/derain", "headers": [], "query_string": b"", "scheme": "http"}
    await app({**scope, "http_version": "1.1", "server": ("test", 80)}, receive, send)
