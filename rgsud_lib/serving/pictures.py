"""A picture file in, a picture file out: what POST /derain does besides deraining."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from rgsud_lib.data.decode import decode
from rgsud_lib.errors import DataError
from rgsud_lib.serving.refusal import Refusal, refused_image

# What each format is called in the address, its content type, and how it is written: fast, and without visible loss.
FORMATS = {
    "png": ("image/png", {"format": "PNG", "compress_level": 2}),
    "jpeg": ("image/jpeg", {"format": "JPEG", "quality": 95, "subsampling": 0}),
    "webp": ("image/webp", {"format": "WEBP", "quality": 95, "method": 2}),
}


def read_picture(data: bytes, max_pixels: int) -> np.ndarray:
    """Foreign bytes to uint8 H x W x 3 by the strict decoder. Raises Refusal."""
    try:
        return decode(data, max_pixels)
    except DataError as error:
        raise refused_image(error) from None


def choose_format(asked: str | None, data: bytes) -> str:
    """The format asked for, else that of the input where it is one of ours, else PNG. Raises Refusal."""
    if asked:
        if asked not in FORMATS:
            raise Refusal(400, f"format={asked!r}: expected one of {', '.join(FORMATS)}")
        return asked
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else "png"


def write_picture(image: np.ndarray, form: str, profile: bytes | None = None) -> bytes:
    """uint8 H x W x 3 as a file of that format, with a colour profile."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, icc_profile=profile, **FORMATS[form][1])
    return buffer.getvalue()


def colour_profile(data: bytes) -> bytes | None:
    """The RGB profile of a picture that `decode` has taken: without it a wide-gamut photograph would come back dull.

    None where there is none, where it cannot be read, or where it describes no RGB.
    """
    with Image.open(io.BytesIO(data)) as image:
        profile = image.info.get("icc_profile")
    try:
        known = profile and ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip() == "RGB"
    except (OSError, ImageCms.PyCMSError):
        return None
    return profile if known else None
