"""The scripts of benchmarks/ can be imported as when one of them is run; Rain100L in miniature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.data.rain import draw_rain

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIDE = 200  # pixels: the judge's model needs some blocks of 96


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return BENCHMARKS


def scene(seed: int) -> np.ndarray:
    """Coloured patches with grain, uint8."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.random((SIDE // 20, SIDE // 20, 3)), np.ones((20, 20, 1)))
    return (255 * (0.8 * patches + 0.2 * rng.random((SIDE, SIDE, 3)))).astype(np.uint8)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rain100L/{rain,clean} with 4 pairs, and clean_bsds with 6 scenes of its own."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("rain100L/rain", "rain100L/clean", "clean_bsds"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        clean = scene(number)
        rainy = np.ascontiguousarray(to_uint8(draw_rain(to_tensor(clean), number))[0])
        for side, image in (("clean", clean), ("rain", rainy)):
            Image.fromarray(image).save(folder / "rain100L" / side / f"{number}.png")
    for number in range(10, 16):
        Image.fromarray(scene(number)).save(folder / "clean_bsds" / f"{number}.png")
    return folder
