"""Demo data without a download: photographs that ship inside installed packages, with drawn rain or haze.

Each photograph serves one purpose only, so that no scene of the held-back pairs is trained on. The
rain is brighter (the haze denser) than what the warm start draws, and of another seed.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from rgsud_lib.data.decode import decode
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.errors import DataError

CLEAN = (
    "sklearn/datasets/images/flower.jpg",
    "skimage/data/rocket.jpg",
    "skimage/data/chelsea.png",
    "skimage/data/camera.png",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
)
RAINY = ("sklearn/datasets/images/china.jpg", "skimage/data/motorcycle_left.png")
PAIRED = ("skimage/data/coffee.png", "skimage/data/astronaut.png")
SEED, STRENGTH = 20_260_101, 1.25
VIEW = (280, 210)  # rough width and height of a view, pixels


def make_demo_data(folder: Path, degradation: str = "rain") -> tuple[str, str, str]:
    """Write rainy/, clean/ and paired/{rain,clean} under `folder`, or find them there; returns the three paths.

    The same files each time. Raises DataError where a package does not ship its photograph.
    """
    folder = Path(folder)
    if not folder.is_dir():
        beside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        _write_all(beside, degradation)
        os.replace(beside, folder)
    return str(folder / "rainy"), str(folder / "clean"), str(folder / "paired")


def _write_all(folder: Path, degradation: str) -> None:
    from rgsud_lib.data.degradations import DEGRADATIONS

    def degraded(path: str, images: list[np.ndarray]) -> list[np.ndarray]:
        draw, photograph = DEGRADATIONS[degradation].draw, (RAINY + PAIRED).index(path)
        drawn = (draw(to_tensor(image), (SEED, photograph, number), STRENGTH) for number, image in enumerate(images))
        return [to_uint8(image)[0] for image in drawn]

    for path in CLEAN:
        _save(folder / "clean", path, views(_photograph(path)))
    for path in RAINY:
        _save(folder / "rainy", path, degraded(path, views(_photograph(path))))
    for path in PAIRED:
        crops = _grid(_photograph(path))
        _save(folder / "paired" / "clean", path, crops)
        _save(folder / "paired" / "rain", path, degraded(path, crops))


def views(photograph: np.ndarray) -> list[np.ndarray]:
    """Different regions of a photograph, its centre across their borders, and the whole at half size."""
    height, width, _ = photograph.shape
    crop_width, crop_height = min(VIEW[0], width), min(VIEW[1], height)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    centre = photograph[top : top + crop_height, left : left + crop_width]
    half = Image.fromarray(photograph).resize((width // 2, height // 2), Image.Resampling.BOX)
    return [*_grid(photograph), centre, np.asarray(half)]


def _grid(photograph: np.ndarray) -> list[np.ndarray]:
    """Cut into equal regions of about VIEW that do not overlap."""
    height, width, _ = photograph.shape
    rows, columns = max(1, round(height / VIEW[1])), max(1, round(width / VIEW[0]))
    tall, wide = height // rows, width // columns
    corners = ((row * tall, column * wide) for row in range(rows) for column in range(columns))
    return [photograph[top : top + tall, left : left + wide] for top, left in corners]


def _photograph(path: str) -> np.ndarray:
    package, _, inside = path.partition("/")
    spec = find_spec(package)
    file = Path(spec.submodule_search_locations[0], inside) if spec and spec.submodule_search_locations else None
    if file is None or not file.is_file():
        fix = "give your own folders with --rainy and --clean"
        raise DataError(f"the installed {package} does not ship {inside}; {fix}")
    return decode(file.read_bytes(), max_pixels=10_000_000)


def _save(folder: Path, path: str, images: list[np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{Path(path).stem}-{number}.png")
