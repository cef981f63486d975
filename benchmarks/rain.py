"""How long do the rain models take, beside the warm start's streaks?

usage: python benchmarks/rain.py [--sizes 128 512 1080] [--repeats 5] [--out benchmarks/results/rain.json]

Square images, one a call, one thread; the least of `--repeats` times, each with another seed, in milliseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import write_record
from torch import Tensor

from rgsud_lib.data.rain import draw_rain
from rgsud_lib.data.rain_models import HEAVY, LIGHT, add_heavy_rain, add_streaks, screen

MODELS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "draw_rain (warm start)": draw_rain,
    "streaks, linear": lambda clean, seed: add_streaks(clean, seed, LIGHT),
    "streaks, screen": lambda clean, seed: add_streaks(clean, seed, LIGHT, screen),
    "streaks of five directions, linear": lambda clean, seed: add_streaks(clean, seed, HEAVY),
    "heavy rain with veil": add_heavy_rain,
}


def milliseconds(model: Callable[[Tensor, int], Tensor], clean: Tensor, repeats: int) -> float:
    model(clean, 0)
    times = []
    for seed in range(repeats):
        started = time.perf_counter()
        model(clean, seed)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512, 1080])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rain.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, float]] = {}
    print(f"{'milliseconds an image':<38}" + "".join(f"{size:>8} px" for size in arguments.sizes))
    for name, model in MODELS.items():
        times = [milliseconds(model, torch.rand(1, 3, size, size), arguments.repeats) for size in arguments.sizes]
        results[name] = {str(size): round(spent, 2) for size, spent in zip(arguments.sizes, times, strict=True)}
        print(f"{name:<38}" + "".join(f"{spent:>11.1f}" for spent in times))
    write_record(arguments.out, {"milliseconds": results})


if __name__ == "__main__":
    main()
