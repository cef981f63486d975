from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from rgsud_lib.config import DataConfig
from rgsud_lib.data.decode import decode
from rgsud_lib.data.phash import BITS, as_words, distances, nearest, phash, scenes

from .conftest import photo

CONFIG = DataConfig()


def hashes(folder: Path) -> np.ndarray:
    return as_words([phash(decode(path.read_bytes(), 10**8)) for path in sorted(folder.iterdir())])


def test_distances_count_bits_of_the_nearer_mirror_image() -> None:
    hashed = [bytes(32).hex(), (b"\xff" + bytes(31)).hex(), (b"\x55" * 32).hex()]
    apart = distances(as_words(hashed), as_words(hashed))
    assert apart.tolist() == [[0, 8, 0], [8, 0, 8], [0, 8, 0]]  # 0x55: exactly the odd columns, so a mirror image
    assert distances(as_words(hashed), as_words([])).shape == (3, 0)


def test_hash_is_balanced_and_stable() -> None:
    hashed = phash(photo(1))
    assert len(hashed) == BITS // 4 and int(hashed, 16).bit_count() == BITS // 2
    assert hashed == phash(photo(1).copy())


def test_same_picture_in_other_dress_and_other_pictures() -> None:
    image = photo(1, 240, 320)
    small = np.asarray(Image.fromarray(image).resize((160, 120), Image.Resampling.BICUBIC))
    mirrored = np.asarray(ImageOps.mirror(Image.fromarray(image)))
    apart = distances(as_words([phash(image)]), as_words([phash(small), phash(mirrored), phash(image[4:-4, 4:-4])]))[0]
    assert apart[0] <= CONFIG.duplicate_bits
    assert (apart[1:] <= CONFIG.leak_bits).all()
    strangers = as_words([phash(photo(seed)) for seed in range(40)])
    between = distances(strangers, strangers)[np.triu_indices(40, 1)]
    assert between.min() > CONFIG.leak_bits


def test_nearest_does_not_depend_on_blocks() -> None:
    rng = np.random.default_rng(0)
    first = [rng.bytes(32).hex() for _ in range(23)]
    second = first[::-1][:9]
    whole, apart = nearest(first, second)
    assert apart[-9:].tolist() == [0] * 9 and whole[-9:].tolist() == list(range(9))[::-1]
    for block in (1, 7):
        assert all(np.array_equal(a, b) for a, b in zip((whole, apart), nearest(first, second, block), strict=True))


def test_scenes_join_transitively() -> None:
    chain = [(b"\xff" * count + bytes(32 - count)).hex() for count in (0, 1, 2, 3)]
    far = (b"\xf0" * 32).hex()
    assert scenes([chain[0], far, chain[2], chain[1], chain[3]], bits=8) == [[0, 2, 3, 4], [1]]
    assert scenes([], 8) == []


@pytest.fixture(scope="module")
def clean_scenes(shared_data: Path) -> np.ndarray:
    return hashes(shared_data / "rain100L" / "clean")


@pytest.mark.parametrize(("rainy", "share"), [("rain100L", 1.0), ("rain100H", 0.95)])
def test_rain_does_not_hide_the_scene(shared_data: Path, clean_scenes: np.ndarray, rainy: str, share: float) -> None:
    apart = np.diag(distances(hashes(shared_data / rainy / "rain"), clean_scenes))
    assert np.mean(apart <= CONFIG.leak_bits) >= share


def test_no_false_alarm_on_real_photographs(shared_data: Path, clean_scenes: np.ndarray) -> None:
    photographs = hashes(shared_data / "clean_bsds")
    assert distances(photographs, clean_scenes).min() > CONFIG.leak_bits
    assert len(scenes([row.tobytes().hex() for row in photographs], CONFIG.leak_bits)) == len(photographs)
