"""How often the drift test raises an alarm: on rain like the known, on the same rain halved, on heavier rain.

Known images are drawn from Rain100L's shared pairs, new ones from the others of them (as they are, or with half of
their rain) or from Rain100H. Also: does the intensity estimate follow the rain that was added?

    python benchmarks/drift.py ../shared/data
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import spearmanr

from rgsud_lib.data.drift import Description, compare, describe

KNOWN, NEW, REPEATS, LEVEL = 30, 12, 100, 0.01


def main(data: Path) -> None:
    """Print shares of alarms at LEVEL over REPEATS random choices, and a rank correlation."""
    names = sorted(path.name for path in (data / "rain100L" / "rain").iterdir())
    pairs = [(read(data / "rain100L" / "rain" / name), read(data / "rain100L" / "clean" / name)) for name in names]
    full = [describe(rain) for rain, _ in pairs]
    half = [describe(((rain.astype(np.uint16) + clean) // 2).astype(np.uint8)) for rain, clean in pairs]
    heavy = [describe(read(path)) for path in sorted((data / "rain100H" / "rain").iterdir())]
    added = [float(np.subtract(rain, clean, dtype=float).mean()) for rain, clean in pairs]
    print(f"rank correlation of rain intensity and added rain: {spearmanr([d.intensity for d in full], added)[0]:.2f}")
    print(f"alarms at {LEVEL}, {KNOWN} known and {NEW} new images of other scenes:")
    for name, new in (("same rain", full), ("half the rain", half), ("Rain100H", heavy)):
        print(f"  {name}: {alarms(full, new):.0%}")


def alarms(known: list[Description], new: list[Description]) -> float:
    """Share of repeats in which the test's p-value is at most LEVEL."""
    raised = 0
    for seed in range(REPEATS):
        order = np.random.default_rng(seed).permutation(min(len(known), len(new)))
        before, after = order[:KNOWN], order[KNOWN : KNOWN + NEW]
        drift = compare([known[index] for index in before], [new[index] for index in after], seed)
        raised += drift.p_value is not None and drift.p_value <= LEVEL
    return raised / REPEATS


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
