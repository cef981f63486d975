"""A 256-bit perceptual hash: which pictures show the same scene, whatever their size, coding or rain.

The signs of an image's low frequencies, after Zauner 2010 (pHash). The distances on real data that
the thresholds in DataConfig rest on are printed by benchmarks/hash_thresholds.py.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE, LOW = 64, 16
BITS = LOW * LOW

_FREQUENCIES = np.arange(LOW)[:, None]
_DCT = np.cos(np.pi / (2 * SIDE) * _FREQUENCIES * (2 * np.arange(SIDE) + 1)).astype(np.float32)
_ODD_COLUMNS = np.packbits(np.tile(np.arange(LOW) % 2 == 1, LOW)).view(np.uint64)


def phash(image: np.ndarray) -> str:
    """64 hex digits of a uint8 H x W x 3 image: is each of its 16 x 16 lowest DCT frequencies above their median?"""
    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    low = _DCT @ np.asarray(grey, np.float32) @ _DCT.T
    return np.packbits(low > np.median(low)).tobytes().hex()


def as_words(hashes: list[str]) -> np.ndarray:
    """Hex hashes to uint64 N x 4."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(-1, BITS // 64)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differing bits (0..256), uint16 N x M, between N x 4 and M x 4 words; the lesser of as is and mirrored.

    Mirroring an image left to right negates its odd columns' frequencies, which (the median being near
    zero) flips their bits: no second hash is needed.
    """
    direct = _bit_count(first, second)
    return np.minimum(direct, _bit_count(first ^ _ODD_COLUMNS, second))


def nearest(first: list[str], second: list[str], block: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """For each of `first`, the index of its nearest in `second` and the distance in bits; `second` is not empty."""
    rows, columns = as_words(first), as_words(second)
    best = np.empty(len(rows), np.intp)
    apart = np.empty(len(rows), np.uint16)
    for start in range(0, len(rows), block):
        part = distances(rows[start : start + block], columns)
        best[start : start + block] = part.argmin(1)
        apart[start : start + block] = part.min(1)
    return best, apart


def scenes(hashes: list[str], bits: int) -> list[list[int]]:
    """Indices grouped into scenes: two images at most `bits` apart are in the same, and so on transitively."""
    words = as_words(hashes)
    left = np.ones(len(words), bool)
    groups = []
    for first in range(len(words)):
        if not left[first]:
            continue
        left[first] = False
        group = [first]
        for index in group:  # it grows while it is walked
            rest = np.flatnonzero(left)
            near = rest[distances(words[[index]], words[rest])[0] <= bits]
            left[near] = False
            group += near.tolist()
        groups.append(sorted(group))
    return groups


def _bit_count(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    total = np.zeros((len(first), len(second)), np.uint16)
    for word in range(first.shape[1]):  # one word at a time: a quarter of the memory of broadcasting all four
        total += np.bitwise_count(first[:, None, word] ^ second[None, :, word])
    return total
