"""Picture files in and out with all that belongs to them: depth, grey, alpha, EXIF and colour profile.

Pillow has no 16-bit RGB, so those files go through imagecodecs (PNG) and tifffile.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from PIL import Image

from rgsud_lib.data.decode import opened
from rgsud_lib.errors import DataError

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "exact": True},
}
_ORIENTATION = 0x0112
_TEXTS = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_EXIF, _GPS = 34665, 34853  # further tags
_KEPT = (*_TEXTS, 282, 283, 296, _EXIF, _GPS)  # not: TIFF's layout, thumbnails, which still show the rain
_UPRIGHT = {
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    8: lambda array: np.rot90(array),
}  # EXIF 2.32, 4.6.4: what an orientation other than 1 asks of the viewer


@dataclass(frozen=True)
class Picture:
    """`samples` are uint8 or uint16, H x W x 1, 2 (grey, alpha), 3 or 4 (RGB, alpha), upright."""

    samples: np.ndarray
    exif: bytes = b""
    icc: bytes = b""


def read_picture(data: bytes, max_pixels: int) -> Picture:
    """A file's picture in its own depth, its EXIF rotation applied. Raises DataError as `data.decode.decode` does."""
    with opened(data, max_pixels) as image:
        if _is_deep(image, data):
            exif = image.getexif()
            samples = _read_deep_png(image, data) if image.format == "PNG" else _read_deep_tiff(data)
        else:
            samples = _read_8_bit(image)
            exif = image.getexif()  # after the pixels: of a TIFF Pillow has applied the rotation by now
        upright = _UPRIGHT.get(exif.get(_ORIENTATION, 1), lambda array: array)(samples)
        icc = image.info.get("icc_profile") or b""
        fitting = icc[16:20] == (b"RGB " if samples.shape[-1] > 2 else b"GRAY")
        return Picture(np.ascontiguousarray(upright), _kept(exif), icc if fitting else b"")


def encode_picture(picture: Picture, name: str) -> bytes:
    """The bytes of a file of that name's format. JPEG, WebP and BMP have 8 bits, a 16-bit TIFF no exposure and GPS.

    Raises DataError: alpha in a format without, a size that the format does not have.
    """
    kind, samples = FORMATS[PurePath(name).suffix.lower()], picture.samples
    if samples.shape[-1] in (2, 4) and kind in ("JPEG", "BMP"):
        raise DataError(f"{kind} has no transparency, which this picture has: write PNG, WebP or TIFF")
    if samples.dtype == np.uint16 and kind == "PNG":
        return _deep_png(picture)
    if samples.dtype == np.uint16 and kind == "TIFF":
        return _deep_tiff(picture)
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    about = {"exif": picture.exif, "icc_profile": picture.icc} if kind != "BMP" else {}
    buffer = io.BytesIO()
    image = Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    try:
        image.save(buffer, kind, **_OPTIONS.get(kind, {}), **{key: value for key, value in about.items() if value})
    except (OSError, ValueError) as error:
        raise DataError(f"this picture cannot be {kind} ({error}); write PNG or TIFF") from None
    return buffer.getvalue()


def _is_deep(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16  # IHDR: bit depth
    bits = getattr(image, "tag_v2", {}).get(258, (8,))
    if max(bits) > 8 and set(bits) != {16}:
        raise DataError(f"unusual samples: a TIFF of {bits} bits a sample; save it with 8 or 16 bits")
    return max(bits) == 16


def _read_8_bit(image: Image.Image) -> np.ndarray:
    image.load()
    grey = image.mode in ("1", "L", "LA")
    mode = ("LA" if grey else "RGBA") if image.has_transparency_data else ("L" if grey else "RGB")
    samples = np.asarray(image if image.mode == mode else image.convert(mode))
    return samples.reshape(*samples.shape[:2], -1)


def _read_deep_png(image: Image.Image, data: bytes) -> np.ndarray:
    import imagecodecs

    if "transparency" in image.info:
        raise DataError("unusual transparency: one colour of a 16-bit PNG; save it with an alpha channel")
    samples = imagecodecs.png_decode(data)
    return samples.reshape(image.height, image.width, -1)


def _read_deep_tiff(data: bytes) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        name = tifffile.PHOTOMETRIC(page.photometric).name
        colours = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3}.get(name)
        if colours is None or page.axes not in ("YX", "YXS", "SYX"):
            raise DataError(f"unusual samples: a 16-bit TIFF of {name}, axes {page.axes}; save it as RGB or grey")
        samples = page.asarray()
        extra = [tifffile.EXTRASAMPLE(kind).name for kind in page.extrasamples]
        samples = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples.reshape(*samples.shape[:2], -1)
    colour, alpha = samples[..., :colours], samples[..., colours : colours + 1]
    if name == "MINISWHITE":
        colour = 65535 - colour
    if extra[:1] == ["ASSOCALPHA"]:
        colour = np.minimum(colour * 65535.0 / np.maximum(alpha, 1), 65535).round().astype(np.uint16)
    return np.concatenate([colour, alpha], axis=-1) if extra[:1] in (["ASSOCALPHA"], ["UNASSALPHA"]) else colour


def _deep_png(picture: Picture) -> bytes:
    import imagecodecs

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    plain = imagecodecs.png_encode(picture.samples)
    header = 8 + 25  # signature and IHDR, which the others follow
    icc = chunk(b"iCCP", b"icc\0\0" + zlib.compress(picture.icc)) if picture.icc else b""
    exif = chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0")) if picture.exif else b""
    return plain[:header] + icc + exif + plain[header:]


def _deep_tiff(picture: Picture) -> bytes:
    import tifffile

    samples = picture.samples[..., 0] if picture.samples.shape[-1] == 1 else picture.samples
    colours = samples.ndim > 2 and samples.shape[-1] > 2
    exif = Image.Exif()
    exif.load(picture.exif)
    tags = [(tag, 2, 0, str(exif[tag]).encode("ascii", "replace"), True) for tag in _TEXTS if tag in exif]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        photometric="rgb" if colours else "minisblack",
        planarconfig="contig" if samples.ndim > 2 else None,
        extrasamples=["unassalpha"] if picture.samples.shape[-1] in (2, 4) else None,
        compression="adobe_deflate",
        iccprofile=picture.icc or None,
        extratags=tags,
        software=False,
        metadata=None,
    )
    return buffer.getvalue()


def _kept(exif: Image.Exif) -> bytes:
    """What describes the photograph, as EXIF bytes; nothing where it is damaged."""
    for tag in [tag for tag in exif if tag not in _KEPT]:
        del exif[tag]
    if not len(exif):
        return b""
    exif[_ORIENTATION] = 1
    try:
        return exif.tobytes()
    except (struct.error, ValueError, TypeError, OverflowError, AttributeError):
        return b""
