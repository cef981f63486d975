"""Foreign image bytes to uint8 RGB: PNG, JPEG, WebP, BMP and TIFF, whatever their depth, palette or rotation.

Files are hostile: only these five decoders are ever tried, the size is judged before any pixel is
decoded, and a damaged file is refused, never completed with grey.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rgsud_lib.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_PHOTOMETRIC, _BITS, _PLANAR = 262, 258, 284  # TIFF tags


def decode(data: bytes, max_pixels: int) -> np.ndarray:
    """The picture as uint8 H x W x 3 RGB, EXIF rotation applied.

    16-bit samples are scaled to 8 (65535 -> 255), transparency is composited over white, CMYK converted
    without a colour profile. Raises DataError with the reason: not an image, damaged, more than
    `max_pixels` pixels (or Pillow's own limit), several frames, float or 32-bit samples.
    The text before the first colon names the kind of fault.
    """
    with opened(data, max_pixels) as image:
        return _to_rgb(image, data)


@contextmanager
def opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A checked image, no pixel of which is decoded yet; whatever goes wrong within is raised as `decode`'s errors."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check(image, max_pixels)
            yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        start = f"not an image: no PNG, JPEG, WebP, BMP or TIFF starts with {data[:8]!r}"
        raise DataError(start if data else "empty file: 0 bytes") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too many pixels: {error}") from None
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error on damaged files
        raise DataError(f"damaged image: {error}") from error


def _check(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        fix = "scale it down or raise the limit"
        raise DataError(f"too many pixels: {width}x{height} is more than data.max_pixels={max_pixels}; {fix}")
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a phone's JPEG, another view behind
    if frames > 1:
        raise DataError(f"several frames: {frames} frames or pages; save each as an image of its own")
    if image.mode in ("I", "F"):
        raise DataError("unusual samples: 32-bit or float values have no agreed white; save with 8 or 16 bits each")


def _to_rgb(image: Image.Image, data: bytes) -> np.ndarray:
    if _is_planar16(image):
        return _read_planar16(data)
    image.load()
    if image.mode in _DEEP_GREY:
        image = _grey16_to_8(image)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _grey16_to_8(image: Image.Image) -> Image.Image:
    """Pillow's own conversion would clip at 255 and forget that a TIFF may count from white."""
    grey = np.asarray(image).astype(np.uint32)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        grey = 65535 - grey
    scaled = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    scaled.info["exif"] = image.getexif().tobytes()
    return scaled


def _is_planar16(image: Image.Image) -> bool:
    """16-bit TIFF with one plane a channel: Pillow decodes it into noise without an error."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) > 8


def _read_planar16(data: bytes) -> np.ndarray:
    try:
        import tifffile
    except ModuleNotFoundError as error:
        fix = "install it or save the file interleaved"
        raise DataError(f"separate planes: such a 16-bit TIFF needs the package tifffile; {fix}") from error
    planes = tifffile.imread(io.BytesIO(data))
    if planes.ndim != 3 or planes.dtype != np.uint16 or planes.shape[0] != 3:
        found = f"{planes.shape} of {planes.dtype}"
        raise DataError(f"separate planes: {found}, expected 3 planes of 16 bits; save it as RGB")
    return np.ascontiguousarray(((planes.astype(np.uint32) + 128) // 257).astype(np.uint8).transpose(1, 2, 0))
