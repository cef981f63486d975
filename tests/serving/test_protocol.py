"""Open Inference Protocol v2: every form of the input goes in, comes back in the same form, and faults are named."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from rgsud_lib.serving.protocol import HEADER

from .conftest import picture

RAMP = np.linspace(0.2, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.fixture
def client(make_app):
    with TestClient(make_app("max_pixels=10000", "max_images=4", "max_json_bytes=100000")[0]) as client:
        yield client


def request(values: object, shape: list[int], datatype: str, **parameters: object) -> dict[str, object]:
    tensor = {"name": "rainy", "shape": shape, "datatype": datatype, "parameters": parameters, "data": values}
    return {"id": "7", "inputs": [tensor]}


def infer(client: TestClient, document: dict[str, object], raw: bytes | None = None):
    head = json.dumps(document).encode()
    headers = {} if raw is None else {HEADER: str(len(head))}
    return client.post("/v2/models/rgsud/infer", content=head + (raw or b""), headers=headers)


def output(answer) -> tuple[dict, np.ndarray | list[bytes]]:
    """The one output and its values, wherever they are."""
    size = int(answer.headers.get(HEADER, len(answer.content)))
    document = json.loads(answer.content[:size])
    assert (document["model_name"], document["id"]) == ("rgsud", "7")
    (tensor,) = document["outputs"]
    assert tensor["name"] == "derained"
    types = {"FP32": np.float32, "UINT8": np.uint8}
    if HEADER in answer.headers:
        raw = answer.content[size:]
        assert tensor["parameters"]["binary_data_size"] == len(raw)
        return tensor, np.frombuffer(raw, types[tensor["datatype"]]).reshape(tensor["shape"])
    return tensor, np.array(tensor["data"]).reshape(tensor["shape"]) if tensor["datatype"] in types else tensor["data"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("datatype", ["FP32", "UINT8"])
@pytest.mark.parametrize("way", ["nested", "flat", "binary in", "binary out", "binary"])
def test_numbers(client, layout: str, datatype: str, way: str) -> None:
    values = RAMP if layout == "NCHW" else RAMP.transpose(0, 2, 3, 1)
    values = values if datatype == "FP32" else (values * 255).round().astype(np.uint8)
    raw = values.tobytes() if way in ("binary", "binary in") else None
    document = request(values.tolist() if way == "nested" else values.ravel().tolist(), list(values.shape), datatype)
    if raw is not None:
        document = request(None, list(values.shape), datatype, binary_data_size=len(raw))
    if way in ("binary", "binary out"):
        document["outputs"] = [{"name": "derained", "parameters": {"binary_data": True}}]
    answer = infer(client, document, raw)
    assert answer.status_code == 200, answer.text
    tensor, found = output(answer)
    assert (tensor["datatype"], tensor["shape"]) == (datatype, list(values.shape))
    assert (HEADER in answer.headers) == (way in ("binary", "binary out"))
    expected = values.astype(float) - (0.1 if datatype == "FP32" else 25.5)
    assert np.abs(found - expected).max() <= (1e-6 if datatype == "FP32" else 0.5)


def test_which_axis_has_the_channels_can_be_said_where_both_could(client) -> None:
    values = np.full((1, 3, 2, 3), 0.5, np.float32)
    for layout in ("NCHW", "NHWC"):
        answer = infer(client, request(values.tolist(), [1, 3, 2, 3], "FP32", layout=layout))
        assert (answer.status_code, output(answer)[0]["shape"]) == (200, [1, 3, 2, 3])


def test_picture_files(client) -> None:
    files = [picture(), picture(30, 20, "JPEG")]
    answer = infer(client, request([base64.b64encode(file).decode() for file in files], [2], "BYTES"))
    assert answer.status_code == 200, answer.text
    tensor, data = output(answer)
    images = [Image.open(io.BytesIO(base64.b64decode(item))) for item in data]
    assert [(image.format, image.size) for image in images] == [("PNG", (20, 10)), ("PNG", (30, 20))]
    raw = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    document = request(None, [2, 1], "BYTES", binary_data_size=len(raw))
    answer = infer(client, document | {"parameters": {"binary_data_output": True}}, raw)
    size = int(answer.headers[HEADER])
    length = int.from_bytes(answer.content[size : size + 4], "little")
    assert answer.content[size + 4 : size + 4 + length] == base64.b64decode(data[0])


GREY = [0.5] * 12
FAULTS = [
    (request(GREY, [1, 3, 2, 2], "FP64"), None, 400, "inputs.0.datatype: Input should be 'FP32', 'UINT8' or 'BYTES'"),
    (request(GREY, [3, 2, 2], "FP32"), None, 400, "has shape [3, 2, 2]; expected four axes, B x 3 x H x W"),
    (request(GREY, [1, 3, 2, 2], "FP32", layout="NHWC"), None, 400, "as layout 'NHWC'"),
    (request([], [1, 3, 0, 2], "FP32"), None, 400, "none of them 0"),
    (request(GREY, [1, 3, -2, -2], "FP32"), None, 400, "greater than or equal to 0"),
    (request(GREY[:-1], [1, 3, 2, 2], "FP32"), None, 400, "data has shape [11]; expected [1, 3, 2, 2], or flat"),
    (request([[0.5], [0.5, 1]], [1, 3, 2, 2], "FP32"), None, 400, "data is ragged"),
    (request(["a"] * 12, [1, 3, 2, 2], "FP32"), None, 400, "other things than FP32 numbers"),
    (request([10**400] * 12, [1, 3, 2, 2], "FP32"), None, 400, "FP32"),
    (request([3.0] * 12, [1, 3, 2, 2], "FP32"), None, 400, "spans [3, 3]; expected finite values in [0,1]"),
    (request([float("nan")] * 12, [1, 3, 2, 2], "FP32"), None, 400, "expected finite values"),
    (request(GREY, [1, 3, 2, 2], "UINT8"), None, 400, "other things than UINT8 numbers"),
    (request([256] * 12, [1, 3, 2, 2], "UINT8"), None, 400, "UINT8 is 0 to 255"),
    (request(None, [1, 3, 2, 2], "FP32"), None, 400, "neither data nor the parameter binary_data_size"),
    (request(None, [1, 3, 2, 2], "FP32", binary_data_size=48), bytes(47), 400, "binary_data_size is 48 and 47 bytes"),
    (request(None, [1, 3, 2, 2], "FP32", binary_data_size="x"), bytes(48), 400, "binary_data_size is 'x'"),
    (request(None, [5, 3, 2, 2], "UINT8", binary_data_size=60), bytes(60), 413, "5 images, at most max_images=4"),
    (request(None, [1, 3, 200, 200], "UINT8", binary_data_size=1), b"", 413, "the answer is too large for JSON"),
    (request(None, [1, 3, 101, 100], "UINT8", binary_data_size=1), b"", 413, "10100 pixels, at most max_pixels=10000"),
    (request(None, [1, 3, 2**62, 2**62], "UINT8", binary_data_size=1), b"", 413, "too large"),
    (request(["?"], [1], "BYTES"), None, 400, "strings of base64"),
    (request([base64.b64encode(b"hello").decode()], [1], "BYTES"), None, 415, "not an image"),
    (request([base64.b64encode(picture(101, 100)).decode()], [1], "BYTES"), None, 413, "101x100 is more than"),
    (request(["", ""], [1], "BYTES"), None, 400, "has shape [1], but 2 elements"),
    (request([], [0], "BYTES"), None, 400, "expected [number of files]"),
    (request(None, [3], "BYTES", binary_data_size=8), bytes(8), 400, "element 2 is cut off"),
    (request(None, [1], "BYTES", binary_data_size=4), b"\xff\xff\xff\xff", 400, "element 0 is cut off"),
    (request(None, [1], "BYTES", binary_data_size=5), bytes(5), 400, "elements take 4"),
    ({"inputs": []}, None, 400, "inputs: List should have at least 1 item"),
    ({"inputs": [request(GREY, [1], "FP32")["inputs"][0] | {"name": "x"}]}, None, 400, "expected one, 'rainy'"),
    (request(GREY, [1, 3, 2, 2], "FP32") | {"outputs": [{"name": "x"}]}, None, 400, "there is one, 'derained'"),
]


@pytest.mark.parametrize(("document", "raw", "status", "words"), FAULTS, ids=[words for *_, words in FAULTS])
def test_faults_are_named(client, document, raw, status: int, words: str) -> None:
    answer = infer(client, document, raw)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]


def test_json_that_is_none_or_too_much(client) -> None:
    address = "/v2/models/rgsud/infer"
    for body in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 50_000):
        assert client.post(address, content=body).status_code == 400
    answer = client.post(address, content=b"[" * 100_001)
    assert (answer.status_code, "send tensors with the binary extension" in answer.json()["error"]) == (413, True)
    for size in ("x", "-1", "9", "9" * 50):
        answer = client.post(address, content=b"{}", headers={HEADER: size})
        assert (answer.status_code, HEADER in answer.json()["error"]) == (400, True)
