"""Values of tensors on the wire: JSON numbers, raw little-endian bytes, and files with their lengths before them."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import Any

import numpy as np

from rgsud_lib.serving.refusal import Refusal

TYPES = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
SLICE = 2**16  # numbers written at once: between slices other threads get their turn


def read_binary(raw: bytes, size: object, shape: list[int], datatype: str) -> np.ndarray:
    """The one binary tensor behind the JSON. Raises Refusal where sizes disagree."""
    expected = math.prod(shape) * TYPES[datatype].itemsize
    if size != expected or len(raw) != expected:
        wanted = f"shape {shape} of {datatype} takes {expected}"
        raise Refusal(400, f"binary_data_size is {size!r} and {len(raw)} bytes follow the JSON; {wanted}")
    return np.frombuffer(raw, TYPES[datatype]).reshape(shape)


def read_numbers(data: list[Any], shape: list[int], datatype: str) -> np.ndarray:
    """JSON numbers, nested or flat in row-major order. Raises Refusal: ragged, of another kind, out of range."""
    try:
        values = np.asarray(data)
    except ValueError:
        raise Refusal(400, "data is ragged: its lists differ in length") from None
    if values.dtype.kind not in ("uif" if datatype == "FP32" else "ui"):
        raise Refusal(400, f"data holds other things than {datatype} numbers")
    if values.size != math.prod(shape) or values.shape not in (tuple(shape), (values.size,)):
        raise Refusal(400, f"data has shape {list(values.shape)}; expected {shape}, or flat with as many numbers")
    if datatype == "UINT8" and (values.min() < 0 or values.max() > 255):
        raise Refusal(400, f"data spans [{values.min()}, {values.max()}]; UINT8 is 0 to 255")
    with np.errstate(over="ignore"):  # becomes infinite, and is then refused as such
        return values.astype(TYPES[datatype]).reshape(shape)


def unpack_files(data: list[Any] | None) -> list[bytes]:
    """BYTES elements of JSON: strings of base64, one a picture file. Raises Refusal."""
    strings = [item for row in data or [] for item in (row if isinstance(row, list) else [row])]
    try:
        return [base64.b64decode(string, validate=True) for string in strings]
    except (TypeError, ValueError, binascii.Error):
        raise Refusal(400, "BYTES in JSON are strings of base64, one a picture file") from None


def split_files(raw: bytes, size: object, count: int) -> list[bytes]:
    """`count` BYTES elements behind the JSON, each after its length in four bytes. Raises Refusal."""
    files, start = [], 0
    for index in range(count):
        length = struct.unpack_from("<I", raw, start)[0] if len(raw) >= start + 4 else len(raw)
        if len(raw) < start + 4 + length:
            raise Refusal(400, f"BYTES element {index} is cut off: fewer bytes are there than its length says")
        files.append(raw[start + 4 : start + 4 + length])
        start += 4 + length
    if size != start or len(raw) != start:
        raise Refusal(400, f"binary_data_size is {size!r} and {len(raw)} bytes follow the JSON; elements take {start}")
    return files


def pack_files(files: list[bytes]) -> bytes:
    """The reverse of `split_files`."""
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def to_json(document: dict[str, Any], output: dict[str, Any], values: np.ndarray | list[bytes] | None = None) -> bytes:
    """The answer with its one output: `values` inside, or behind it in binary."""
    if values is None:
        return json.dumps({**document, "outputs": [output]}).encode()
    if isinstance(values, list):
        data = json.dumps([base64.b64encode(file).decode() for file in values])
    else:
        flat = values.reshape(-1)
        parts = (json.dumps(flat[start : start + SLICE].tolist())[1:-1] for start in range(0, flat.size, SLICE))
        data = f"[{','.join(parts)}]"
    head = json.dumps({**document, "outputs": [{**output, "data": None}]})
    return head.removesuffix("null}]}").encode() + data.encode() + b"}]}"
