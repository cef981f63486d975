"""Picture files of requests: `inference.pictures` with the service's words and formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rgsud_lib.errors import DataError
from rgsud_lib.inference.pictures import Picture, encode_picture
from rgsud_lib.inference.pictures import read_picture as read
from rgsud_lib.serving.refusal import Refusal, refused_image

FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "tiff": "image/tiff"}


def read_picture(data: bytes, max_pixels: int) -> Picture:
    """Foreign bytes to a picture, by the strict decoder. Raises Refusal."""
    try:
        return read(data, max_pixels)
    except DataError as error:
        raise refused_image(error) from None


def choose_format(asked: str | None, data: bytes) -> str:
    """The format asked for, else that of the input where browsers know it, else PNG. Raises Refusal."""
    if asked:
        if asked not in FORMATS:
            raise Refusal(400, f"format={asked!r}: expected one of {', '.join(FORMATS)}")
        return asked
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else "png"


def write_picture(picture: Picture, samples: np.ndarray, form: str) -> bytes:
    """A file of that format with new samples and all else that belongs to the picture. Raises Refusal."""
    try:
        return encode_picture(replace(picture, samples=samples), f"derained.{form}")
    except DataError as error:
        raise refused_image(error) from None
