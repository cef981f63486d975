"""Distances of the perceptual hash on real images: where data.duplicate_bits and data.leak_bits come from.

    python benchmarks/hash_thresholds.py [--data ../shared/data]

A row is a kind of pair of images; its columns are the smallest and largest distance and percentiles,
in bits of 256. A threshold is right if it lies above the rows marked + and below those marked -.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rgsud_lib.config import DataConfig
from rgsud_lib.data.decode import decode
from rgsud_lib.data.phash import as_words, distances, phash

Images = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("RGSUD_TEST_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="the folder with rain100L, clean_bsds, ...")
    data = parser.parse_args().data
    light, heavy = load(data / "rain100L" / "rain"), load(data / "rain100H" / "rain")
    clean, photographs, real = load(data / "rain100L" / "clean"), load(data / "clean_bsds"), load(data / "real_rain")
    config = DataConfig()
    print(f"data.duplicate_bits={config.duplicate_bits} data.leak_bits={config.leak_bits}\n")
    print(f"{'pairs':<52}{'n':>7}{'min':>5}{'1%':>5}{'50%':>5}{'90%':>5}{'max':>5}{'duplicate':>11}{'same scene':>11}")

    words = {name: hashes(images) for name, images in (("L", light), ("H", heavy), ("C", clean), ("B", photographs))}
    row("+ Rain100L rainy, its clean image", np.diag(distances(words["L"], words["C"])))
    row("+ Rain100H rainy, its clean image", np.diag(distances(words["H"], words["C"])))
    row("+ Rain100L rainy, Rain100H rainy", np.diag(distances(words["L"], words["H"])))
    row("- BSDS photographs, Rain100L clean", distances(words["B"], words["C"]))
    row("- BSDS photographs, Rain100L rainy", distances(words["B"], words["L"]))
    row("- BSDS photographs, Rain100H rainy", distances(words["B"], words["H"]))
    row("- BSDS photographs among themselves", others(words["B"]))
    row("- real rain among itself", others(hashes(real)))
    row("  Rain100L rainy among itself (some scenes twice)", others(words["L"]))
    for name, edit in EDITS.items():
        for kind, images in (("BSDS", photographs), ("real rain", real)):
            edited = {key: edit(image) for key, image in images.items()}
            row(f"+ {kind}, {name}", np.diag(distances(hashes(images), hashes(edited))))


def load(folder: Path) -> Images:
    return {path.stem: decode(path.read_bytes(), 100_000_000) for path in sorted(folder.iterdir())}


def hashes(images: Images) -> np.ndarray:
    return as_words([phash(image) for image in images.values()])


def others(words: np.ndarray) -> np.ndarray:
    return distances(words, words)[np.triu_indices(len(words), 1)]


def row(name: str, apart: np.ndarray) -> None:
    apart = apart.ravel()
    low, middle, high = np.percentile(apart, [1, 50, 90])
    config = DataConfig()
    shares = "".join(f"{100 * np.mean(apart <= bits):>10.4g}%" for bits in (config.duplicate_bits, config.leak_bits))
    print(f"{name:<52}{apart.size:>7}{apart.min():>5}{low:>5.0f}{middle:>5.0f}{high:>5.0f}{apart.max():>5}{shares}")


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(image: np.ndarray) -> np.ndarray:
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    return edit


def coded(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def edit(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return decode(buffer.getvalue(), 100_000_000)

    return edit


def cropped(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(image: np.ndarray) -> np.ndarray:
        rows, columns = (round(side * share) for side in image.shape[:2])
        return image[rows : image.shape[0] - rows, columns : image.shape[1] - columns]

    return edit


EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half size": scaled(0.5),
    "quarter size": scaled(0.25),
    "double size": scaled(2.0),
    "JPEG quality 30": coded(30),
    "JPEG quality 10": coded(10),
    "1 % cropped from each side": cropped(0.01),
    "2 % cropped from each side": cropped(0.02),
    "3 % cropped from each side": cropped(0.03),
    "mirrored": lambda image: np.asarray(ImageOps.mirror(Image.fromarray(image))),
    "brighter by 30 %": lambda image: np.minimum(image.astype(np.float32) * 1.3, 255).astype(np.uint8),
}

if __name__ == "__main__":
    main()
