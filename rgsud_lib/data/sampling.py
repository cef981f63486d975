"""Unpaired crops as a pure function of (seed, step): there is no loader state to save or lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from rgsud_lib.data.images import to_tensor


class Stream(IntEnum):
    """Independent random streams of one step."""

    RAINY, CLEAN, DRAWN_RAIN, MIXTURE, SCORING, VALIDATION = range(6)


@dataclass(frozen=True)
class Crop:
    """A square of one image, mirrored or not. A reward uses the same crop as its rainy image."""

    image: str
    top: float  # position as a share of the free range, so that it fits any image size
    left: float
    flip: bool


def stream(seed: int, step: int, which: Stream) -> np.random.Generator:
    """The random generator of one stream at one step."""
    return np.random.default_rng((seed, step, int(which)))


def draw_crops(images: Sequence[str], count: int, rng: np.random.Generator) -> list[Crop]:
    """`count` crops of images drawn with replacement."""
    return [
        Crop(images[rng.integers(len(images))], float(rng.random()), float(rng.random()), bool(rng.random() < 0.5))
        for _ in range(count)
    ]


def cut(crops: Sequence[Crop], side: int, load: Callable[[str], np.ndarray]) -> Tensor:
    """The crops as float [0,1] B x 3 x side x side; `load(image)` gives uint8 H x W x 3.

    Images smaller than a crop are mirrored outwards.
    """
    batch = to_tensor(np.stack([_cut(load(crop.image), crop, side) for crop in crops]))
    return batch.contiguous(memory_format=torch.channels_last)


def _cut(image: np.ndarray, crop: Crop, side: int) -> np.ndarray:
    short = [(0, max(0, side - size)) for size in image.shape[:2]]
    if any(after for _, after in short):
        image = np.pad(image, (*short, (0, 0)), mode="symmetric")
    top = int(crop.top * (image.shape[0] - side + 1))
    left = int(crop.left * (image.shape[1] - side + 1))
    square = image[top : top + side, left : left + side]
    return square[:, ::-1] if crop.flip else square
