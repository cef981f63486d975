from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from rgsud_lib.data.decode import decode
from rgsud_lib.errors import DataError

LIMIT = 1_000_000
ANIMATED = {"save_all": True, "append_images": [Image.new("RGB", (60, 40))]}


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    """Smooth enough for JPEG, different in every corner and channel."""
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    channels = (down + 0 * across, across + 0 * down, 0.5 * (2 - down - across))
    return np.stack([np.rint(255 * channel) for channel in channels], -1).astype(np.uint8)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def png16(samples: np.ndarray) -> bytes:
    """A 16-bit PNG, grey or RGB, written by hand: Pillow writes no 16-bit RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if samples.ndim == 3 else 0, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("format", "options", "tolerance"), [
    ("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {}, 0), ("TIFF", {"compression": "tiff_lzw"}, 0),
    ("WEBP", {"lossless": True}, 0), ("WEBP", {"quality": 95}, 12), ("JPEG", {"quality": 95, "subsampling": 0}, 6),
])  # fmt: skip
def test_formats(format: str, options: dict[str, object], tolerance: int) -> None:
    image = decode(saved(Image.fromarray(ramp()), format, **options), LIMIT)
    assert image.dtype == np.uint8 and image.shape == (40, 60, 3)
    assert np.abs(image.astype(int) - ramp()).max() <= tolerance


@pytest.mark.parametrize("write", [png16, tiff], ids=["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(write: object) -> None:
    wide = np.linspace(0, 65535, 40 * 60).round().astype(np.uint16).reshape(40, 60)
    image = decode(write(wide), LIMIT)
    assert np.array_equal(image[..., 0], np.rint(wide / 257).astype(np.uint8))
    assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()


@pytest.mark.parametrize("write", [
    png16,
    lambda samples: tiff(samples, photometric="rgb"),
    lambda samples: tiff(samples, photometric="rgb", byteorder=">", compression="zlib"),
    lambda samples: tiff(samples.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"),
], ids=["png", "tiff", "tiff-big-endian", "tiff-planar"])  # fmt: skip
def test_16_bit_rgb(write: object) -> None:
    image = decode(write(ramp().astype(np.uint16) * 257), LIMIT)
    assert np.abs(image.astype(int) - ramp()).max() <= 1


def test_tiff_that_counts_from_white() -> None:
    wide = np.full((40, 60), 65535, np.uint16)
    assert (decode(tiff(wide, photometric="miniswhite"), LIMIT) == 0).all()


def test_grey_palette_and_bilevel() -> None:
    grey = Image.fromarray(ramp()).convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, -1)
    assert np.array_equal(decode(saved(grey, "PNG"), LIMIT), expected)
    palette = Image.fromarray(ramp()).quantize(64)
    assert np.array_equal(decode(saved(palette, "PNG"), LIMIT), np.asarray(palette.convert("RGB")))
    bilevel = grey.point(lambda value: 255 * (value > 99), mode="1")
    assert set(np.unique(decode(saved(bilevel, "PNG"), LIMIT))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white(mode: str) -> None:
    if mode == "P":
        data = saved(Image.new("P", (60, 40), 0), "PNG", transparency=0)
    else:
        data = saved(Image.new(mode, (60, 40), 0), "PNG")
    assert (decode(data, LIMIT) == 255).all()


def test_opaque_alpha_changes_nothing() -> None:
    assert np.array_equal(decode(saved(Image.fromarray(ramp()).convert("RGBA"), "PNG"), LIMIT), ramp())


@pytest.mark.parametrize(("orientation", "upright"), [
    (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, lambda a: np.rot90(a)),
])  # fmt: skip
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_exif_rotation(orientation: int, upright: object, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(saved(Image.fromarray(ramp()), format, exif=exif, quality=95), LIMIT)
    assert image.shape == upright(ramp()).shape
    assert np.abs(image.astype(int) - upright(ramp())).max() <= 12


def test_rotated_16_bit_grey() -> None:
    wide = np.zeros((40, 60), np.uint16)
    wide[:, 30:] = 65535
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(saved(Image.fromarray(wide), "PNG", exif=exif), LIMIT)
    assert image.shape == (60, 40, 3) and (image[:30] == 0).all() and (image[30:] == 255).all()


def test_cmyk_jpeg() -> None:
    image = decode(saved(Image.fromarray(ramp()).convert("CMYK"), "JPEG", quality=95), LIMIT)
    assert np.abs(image.astype(int) - ramp()).mean() < 4


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "empty file"),
    (b"this is a text file named .png\n" * 9, "not an image"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    (saved(Image.fromarray(ramp()), "GIF"), "not an image"),
    (saved(Image.fromarray(ramp()), "JPEG")[:400], "damaged image"),
    (saved(Image.fromarray(ramp()), "PNG", compress_level=0)[:3000], "damaged image"),
    (saved(Image.fromarray(ramp()), "WEBP")[:-20], "damaged image|not an image"),
    (saved(Image.fromarray(ramp()), "BMP")[:2000], "damaged image"),
    (saved(Image.fromarray(ramp()), "TIFF")[:1000], "damaged image|not an image"),
    (saved(Image.fromarray(ramp()), "TIFF", **ANIMATED), "several frames: 2"),
    (saved(Image.fromarray(ramp()), "WEBP", **ANIMATED), "several frames: 2"),
    (saved(Image.fromarray(ramp()), "PNG", **ANIMATED), "several frames: 2"),
    (tiff(np.zeros((40, 60), np.float32)), "unusual samples"),
    (tiff(np.zeros((40, 60), np.uint32)), "unusual samples"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode(data, LIMIT)


def test_size_is_judged_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 12_000, 9_000, 8, 2, 0, 0, 0)
    claims_108_megapixels = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    claims_108_megapixels += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 9) + b"IDAT"

    def never(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(DataError, match="too many pixels"):
        decode(claims_108_megapixels, 100_000_000)
    with pytest.raises(DataError, match=r"too many pixels: 60x40 is more than data.max_pixels=2399"):
        decode(saved(Image.fromarray(ramp()), "PNG"), 2399)


def test_any_flipped_byte_gives_an_image_or_a_reason() -> None:
    rng = np.random.default_rng(0)
    for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        whole = bytearray(saved(Image.fromarray(ramp()), format))
        for _ in range(60):
            broken = bytearray(whole)
            for position in rng.integers(0, len(whole), 4):
                broken[position] ^= int(rng.integers(1, 256))
            try:
                assert decode(bytes(broken), LIMIT).dtype == np.uint8
            except DataError as error:
                assert ":" in str(error)


def test_real_photographs(shared_data: Path) -> None:
    path = sorted((shared_data / "clean_bsds").iterdir())[0]
    assert np.array_equal(decode(path.read_bytes(), LIMIT), np.asarray(Image.open(path).convert("RGB")))
