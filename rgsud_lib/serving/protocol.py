"""The Open Inference Protocol v2, REST: requests to images and back, in JSON or with the binary tensor extension.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, and the extension as Triton's
documents describe it. One input, `rainy`: FP32 in [0,1] or UINT8, B x 3 x H x W or B x H x W x 3 (the parameter
`layout` says which where both fit), or BYTES, one picture file an element (base64 in JSON). The one output, `derained`,
has the input's type and layout; files come back as PNG.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from rgsud_lib.config import ServingConfig
from rgsud_lib.inference.pictures import Picture
from rgsud_lib.serving.pictures import read_picture, write_picture
from rgsud_lib.serving.refusal import Refusal
from rgsud_lib.serving.tensors import TYPES, pack_files, read_binary, read_numbers, split_files, to_json, unpack_files

INPUT, OUTPUT = "rainy", "derained"
HEADER = "Inference-Header-Content-Length"  # bytes of JSON before the binary tensors
SLACK = 1e-3  # by which rounding may leave [0,1]
LAYOUTS = {"NCHW": 1, "NHWC": 3}  # the axis of the three channels


class _Tensor(BaseModel):
    name: str
    shape: list[NonNegativeInt]
    datatype: Literal["FP32", "UINT8", "BYTES"]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Wanted(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class _Head(BaseModel):
    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[_Tensor] = Field(min_length=1)
    outputs: list[_Wanted] = []


class Inference(NamedTuple):
    """A request: its pictures, of numbers uint8 or float32 H x W x 3, and the form in which they go back."""

    pictures: list[Picture]
    datatype: str
    layout: str
    binary: bool
    id: str | None


def describe(settings: ServingConfig, version: str) -> dict[str, Any]:
    """The model's metadata. The protocol has room for one form of the input, so it names the usual one."""
    tensor = {"datatype": "FP32", "shape": [-1, 3, -1, -1]}
    tensors = {"inputs": [{"name": INPUT, **tensor}], "outputs": [{"name": OUTPUT, **tensor}]}
    return {"name": settings.name, "versions": [version], "platform": "rgsud", **tensors}


def read_inference(body: bytes, header: str | None, settings: ServingConfig) -> Inference:
    """Parse and check a request; `header` is the value of HEADER. Raises Refusal with the reason."""
    size = _head_size(body, header)
    if size > settings.max_json_bytes:
        fix = "send tensors with the binary extension"
        raise Refusal(413, f"{size} bytes of JSON, at most max_json_bytes={settings.max_json_bytes} are taken; {fix}")
    try:
        head = _Head.model_validate_json(body[:size])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the JSON document"
        raise Refusal(400, f"{where}: {first['msg']}") from None
    if [tensor.name for tensor in head.inputs] != [INPUT]:
        names = [tensor.name for tensor in head.inputs]
        raise Refusal(400, f"inputs {names}: expected one, {INPUT!r}")
    if any(output.name != OUTPUT for output in head.outputs):
        raise Refusal(400, f"outputs {[output.name for output in head.outputs]}: there is one, {OUTPUT!r}")
    binary = bool(head.parameters.get("binary_data_output", False))
    for output in head.outputs:
        binary = bool(output.parameters.get("binary_data", binary))
    tensor = head.inputs[0]
    if tensor.datatype == "BYTES":
        return Inference(_files(tensor, body[size:], settings), tensor.datatype, "", binary, head.id)
    layout = _layout(tensor)
    if not binary and math.prod(tensor.shape) * TYPES[tensor.datatype].itemsize > settings.max_json_bytes:
        raise Refusal(413, "the answer is too large for JSON; ask for it with the parameter binary_data_output: true")
    return Inference(_images(tensor, layout, body[size:], settings), tensor.datatype, layout, binary, head.id)


def write_inference(
    request: Inference, results: list[np.ndarray], settings: ServingConfig, version: str
) -> tuple[bytes, int | None]:
    """The answer's body and, where it has binary tensors, the bytes of JSON before them."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": request.datatype}
    document: dict[str, Any] = {"model_name": settings.name, "model_version": version}
    document |= {"id": request.id} if request.id is not None else {}
    if request.datatype == "BYTES":
        both = zip(request.pictures, results, strict=True)
        values: Any = [write_picture(picture, samples, "png") for picture, samples in both]
        output["shape"] = [len(values)]
    else:
        values = np.stack(results)
        values = values.transpose(0, 3, 1, 2) if request.layout == "NCHW" else values
        output["shape"] = list(values.shape)
    if not request.binary:
        return to_json(document, output, values), None
    raw = pack_files(values) if request.datatype == "BYTES" else values.tobytes()
    output["parameters"] = {"binary_data_size": len(raw)}
    head = to_json(document, output)
    return head + raw, len(head)


def _head_size(body: bytes, header: str | None) -> int:
    if header is None:
        return len(body)
    if not (header.isdecimal() and len(header) < 20 and int(header) <= len(body)):
        raise Refusal(400, f"{HEADER}: {header!r} is no number of bytes within the body's {len(body)}")
    return int(header)


def _layout(tensor: _Tensor) -> str:
    asked = tensor.parameters.get("layout")
    fitting = [name for name, axis in LAYOUTS.items() if len(tensor.shape) == 4 and tensor.shape[axis] == 3]
    if asked is not None:
        fitting = [name for name in fitting if name == asked]
    if not fitting or 0 in tensor.shape:
        wanted = f"as layout {asked!r}" if asked is not None else "B x 3 x H x W or B x H x W x 3"
        raise Refusal(400, f"{INPUT} has shape {tensor.shape}; expected four axes, {wanted}, none of them 0")
    return fitting[0]


def _images(tensor: _Tensor, layout: str, raw: bytes, settings: ServingConfig) -> list[Picture]:
    count, pixels = tensor.shape[0], math.prod(tensor.shape) // 3
    if count > settings.max_images:
        raise Refusal(413, f"{count} images, at most max_images={settings.max_images} are taken at once")
    if pixels > settings.max_pixels:
        raise Refusal(413, f"{pixels} pixels, at most max_pixels={settings.max_pixels} are taken at once")
    values = _values(tensor, raw)
    if values.dtype.kind == "f" and not (values.min() >= -SLACK and values.max() <= 1 + SLACK):
        found = f"[{values.min():.4g}, {values.max():.4g}]"
        raise Refusal(400, f"{INPUT} spans {found}; expected finite values in [0,1]: divide by 255, or send UINT8")
    return [Picture(image) for image in (values if layout == "NHWC" else values.transpose(0, 2, 3, 1))]


def _values(tensor: _Tensor, raw: bytes) -> np.ndarray:
    if "binary_data_size" in tensor.parameters:
        return read_binary(raw, tensor.parameters["binary_data_size"], tensor.shape, tensor.datatype)
    if tensor.data is None:
        raise Refusal(400, f"{INPUT} has neither data nor the parameter binary_data_size")
    return read_numbers(tensor.data, tensor.shape, tensor.datatype)


def _files(tensor: _Tensor, raw: bytes, settings: ServingConfig) -> list[Picture]:
    count, parameters = math.prod(tensor.shape), tensor.parameters
    if len(tensor.shape) not in (1, 2) or not count:
        raise Refusal(400, f"{INPUT} of BYTES has shape {tensor.shape}; expected [number of files]")
    if count > settings.max_images:
        raise Refusal(413, f"{count} images, at most max_images={settings.max_images} are taken at once")
    if "binary_data_size" in parameters:
        files = split_files(raw, parameters["binary_data_size"], count)
    else:
        files = unpack_files(tensor.data)
    if len(files) != count:
        raise Refusal(400, f"{INPUT} has shape {tensor.shape}, but {len(files)} elements")
    pictures, left = [], settings.max_pixels
    for file in files:
        pictures.append(read_picture(file, left))
        height, width, _ = pictures[-1].samples.shape
        left -= height * width
    return pictures
