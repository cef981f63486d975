from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def photo(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A structured picture, uint8 H x W x 3: random colours at three scales. Two seeds share no scene."""
    rng = np.random.default_rng(seed)
    layers = []
    for cells, weight in ((4, 0.5), (12, 0.35), (40, 0.15)):
        small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers.append(weight * np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32))
    return np.clip(sum(layers), 0, 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """photos("clean", [1, 2]) writes photo(1), photo(2) as PNG files under tmp_path/clean and returns that folder."""

    def write(folder: str, seeds: list[int] | range, names: str = "{:03}.png", **size: int) -> Path:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            Image.fromarray(photo(seed, **size)).save(tmp_path / folder / names.format(seed))
        return tmp_path / folder

    return write
