"""Picture files: what goes in comes out, in every format, depth and with all that belongs to it."""

from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from rgsud_lib.errors import DataError
from rgsud_lib.inference.pictures import Picture, encode_picture, read_picture

LIMIT = 10_000
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def samples(channels: int, dtype: type = np.uint8) -> np.ndarray:
    """Smooth, so that JPEG keeps it."""
    rows, columns = np.mgrid[0:24, 0:37]
    planes = [(rows * (index + 2) + columns * 3) / 255 for index in range(channels)]
    return (np.stack(planes, -1) * np.iinfo(dtype).max).astype(dtype)


def photograph_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8298] = "Maker", orientation, "(c) me"
    exif.get_ifd(0x8769)[0x829A] = 0.004  # exposure time
    exif.get_ifd(0x8825)[0x0001] = "N"  # of the equator
    return exif


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossless_formats_keep_depth_grey_and_alpha(suffix: str, dtype: type, channels: int) -> None:
    if (suffix, dtype, channels) == (".tif", np.uint16, 2):
        pytest.skip("no reader takes a 16-bit grey TIFF with alpha")
    picture = Picture(samples(channels, dtype))
    again = read_picture(encode_picture(picture, f"x{suffix}"), LIMIT)
    assert again.samples.dtype == dtype
    assert np.array_equal(again.samples, picture.samples)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_other_formats_have_8_bits(suffix: str) -> None:
    expected = samples(3)
    again = read_picture(encode_picture(Picture(samples(3, np.uint16)), f"x{suffix.upper()}"), LIMIT)
    assert again.samples.dtype == np.uint8
    assert np.abs(again.samples.astype(int) - expected).max() <= 8


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_and_profile_are_kept(suffix: str, dtype: type) -> None:
    exif = photograph_exif()
    data = encode_picture(Picture(samples(3, dtype), exif.tobytes(), PROFILE), f"x{suffix}")
    again = read_picture(data, LIMIT)
    assert again.icc == PROFILE
    with Image.open(io.BytesIO(data)) as image:
        found = image.getexif()
        assert (found[0x010F], found[0x8298]) == ("Maker", "(c) me")
        if suffix != ".tiff" or dtype == np.uint8:
            assert found.get_ifd(0x8769)[0x829A] == pytest.approx(0.004)
            assert found.get_ifd(0x8825)[0x0001] == "N"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_is_applied_and_its_tag_reset(orientation: int) -> None:
    image = Image.fromarray(samples(3))
    exif = photograph_exif(orientation)
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        image.save(buffer, kind, exif=exif)
        picture = read_picture(buffer.getvalue(), LIMIT)
        with Image.open(io.BytesIO(buffer.getvalue())) as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored))
        assert np.array_equal(picture.samples, expected)
        again = read_picture(encode_picture(picture, "x.jpg"), LIMIT)
        assert again.samples.shape == expected.shape  # not turned twice
        read = Image.Exif()
        read.load(again.exif)
        assert read[0x0112] == 1


def test_rotated_16_bit_files() -> None:
    deep = samples(3, np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deep, photometric="rgb", extratags=[(0x0112, 3, 1, 6, True)])
    assert np.array_equal(read_picture(buffer.getvalue(), LIMIT).samples, np.rot90(deep, -1))
    png = encode_picture(Picture(deep, photograph_exif(3).tobytes()), "x.png")
    assert np.array_equal(read_picture(png, LIMIT).samples, deep[::-1, ::-1])


def test_tiff_planes_white_is_zero_and_multiplied_alpha() -> None:
    def read(array: np.ndarray, **options: object) -> np.ndarray:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)
        return read_picture(buffer.getvalue(), LIMIT).samples

    deep = samples(4, np.uint16)
    planes = np.ascontiguousarray(deep[..., :3].transpose(2, 0, 1))
    assert np.array_equal(read(planes, photometric="rgb", planarconfig="separate"), deep[..., :3])
    assert np.array_equal(read(deep[..., 0], photometric="miniswhite")[..., 0], 65535 - deep[..., 0])
    alpha = np.full(deep.shape[:2], 32768, np.uint16)
    multiplied = np.dstack([deep[..., :3] // 2, alpha])
    found = read(multiplied, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(found[..., :3].astype(int) - deep[..., :3]).max() <= 2
    assert np.array_equal(found[..., 3], alpha)


def test_palettes_and_cmyk_become_rgb() -> None:
    rgba = Image.fromarray(samples(4))
    for image, channels in ((rgba.convert("RGB").quantize(8), 3), (rgba.convert("RGB").convert("CMYK"), 3)):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF" if image.mode == "CMYK" else "PNG", icc_profile=b"\0" * 16 + b"CMYK" + b"\0" * 108)
        picture = read_picture(buffer.getvalue(), LIMIT)
        assert picture.samples.shape[-1] == channels
        assert np.array_equal(picture.samples, np.asarray(image.convert("RGB")))
        assert picture.icc == b""  # of other colours than these


def test_what_a_format_does_not_have_is_refused() -> None:
    for name in ("x.jpg", "x.bmp"):
        with pytest.raises(DataError, match="has no transparency.*: write PNG, WebP or TIFF"):
            encode_picture(Picture(samples(4)), name)
    with pytest.raises(DataError, match="cannot be WEBP"):
        encode_picture(Picture(np.zeros((1, 16400, 3), np.uint8)), "x.webp")


def test_hostile_files_are_refused() -> None:
    deep = encode_picture(Picture(samples(3, np.uint16)), "x.png")
    with pytest.raises(DataError, match="damaged image"):
        read_picture(deep[: len(deep) // 2], LIMIT)
    with pytest.raises(DataError, match="too many pixels: 37x24"):
        read_picture(deep, 100)
    header = struct.pack(">IIBBBBB", 60000, 60000, 16, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = deep[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + deep[33:]
    with pytest.raises(DataError, match="too many pixels"):
        read_picture(bomb, LIMIT)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples(3).astype(np.float32), photometric="rgb")
    with pytest.raises(DataError):
        read_picture(buffer.getvalue(), LIMIT)
    with pytest.raises(DataError, match="not an image"):
        read_picture(b"GIF89a" + b"\0" * 50, LIMIT)
    transparent = imagecodecs.png_encode(samples(3, np.uint16))
    rule = b"tRNS" + b"\0" * 6
    transparent = (
        transparent[:33] + struct.pack(">I", 6) + rule + struct.pack(">I", zlib.crc32(rule)) + transparent[33:]
    )
    with pytest.raises(DataError, match="save it with an alpha channel"):
        read_picture(transparent, LIMIT)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_matter() -> None:
    buffer = io.BytesIO()
    Image.fromarray(samples(3)).save(
        buffer, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x0f\0\x02\xff\xff\xff\xff\0\0\0\0"
    )
    assert np.array_equal(read_picture(buffer.getvalue(), LIMIT).samples, samples(3))
