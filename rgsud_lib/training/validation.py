"""Validation during training, on data that is never reported: held-back clean images with drawn rain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.data.sampling import Stream

GRID_PAIRS = 2  # validation pairs shown in a grid
GRID_SIDE = 256  # pixels of a grid's picture


class Validator:
    """psnr_rgb on fixed drawn pairs, and grids of fixed images: rainy | derained | reward | clean."""

    def __init__(
        self,
        clean: Sequence[np.ndarray],
        rainy: Sequence[tuple[str, np.ndarray]],
        seed: int,
        derain: Callable[[Tensor], Tensor],
        draw: Callable[..., Tensor],
    ):
        self.pairs = [
            (draw(to_tensor(image), (seed, number, Stream.VALIDATION)), to_tensor(image))
            for number, image in enumerate(clean)
        ]
        self.rainy, self.derain = rainy, derain

    @torch.no_grad()
    def psnr_rgb(self, count: int | None = None) -> float:
        """Mean PSNR in dB over the first `count` pairs (default all), RGB, outputs clamped to [0,1]."""
        values = []
        for rainy, clean in self.pairs[:count]:
            error = (self.derain(rainy) - clean).double().square().mean()
            values.append(float(-10 * torch.log10(error.clamp(min=1e-10))))
        return float(np.mean(values))

    @torch.no_grad()
    def grid(self, reward: Callable[[str], np.ndarray | None]) -> np.ndarray:
        """uint8 picture, one row an image: real rain, then drawn rain. A place is grey where there is no such image."""
        cases = [(to_tensor(image), reward(name), None) for name, image in self.rainy]
        cases += [(rainy, None, to_uint8(clean)[0]) for rainy, clean in self.pairs[:GRID_PAIRS]]
        rows = []
        for rainy, rewarded, clean in cases:
            image = to_uint8(rainy)[0]
            grey = np.full_like(image, 128)
            others = [grey if picture is None else picture for picture in (rewarded, clean)]
            tiles = [image, to_uint8(self.derain(rainy))[0], *others]
            rows.append(np.concatenate([_fit(tile) for tile in tiles], axis=1))
        return np.concatenate(rows, axis=0)


def save_grid(grid: np.ndarray, path: Path) -> None:
    """Write a grid as PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid).save(path)


def _fit(image: np.ndarray) -> np.ndarray:
    """The centre of an image, GRID_SIDE square (smaller images are padded): true pixels, so rain stays visible."""
    height, width = image.shape[:2]
    top, left = max(0, (height - GRID_SIDE) // 2), max(0, (width - GRID_SIDE) // 2)
    centre = image[top : top + GRID_SIDE, left : left + GRID_SIDE]
    padding = [(0, GRID_SIDE - centre.shape[0]), (0, GRID_SIDE - centre.shape[1]), (0, 0)]
    return np.pad(centre, padding)
