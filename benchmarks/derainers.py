"""Every derainer and size: parameters, and the time of a training step and of an image, relative to NAFNet's.

usage: python benchmarks/derainers.py [--sizes tiny] [--side 256] [--out benchmarks/results/derainers.json]

A training step is forward and backward of 6 crops of 64 pixels; an image has `side` x `side`. All are timed in turn,
several rounds, and the medians compared. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from record import write_record

from rgsud_lib.config import DerainerConfig
from rgsud_lib.derainer_sizes import SIZES
from rgsud_lib.networks import build_derainer

ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(size: str, side: int) -> dict[str, dict[str, float]]:
    networks = {name: build_derainer(DerainerConfig(name=name, size=size)) for name in SIZES}
    crops, image = torch.rand(6, 3, 64, 64), torch.rand(1, 3, side, side)
    steps: dict[str, list[float]] = {name: [] for name in networks}
    images: dict[str, list[float]] = {name: [] for name in networks}
    for round_ in range(ROUNDS + 1):
        for name, network in networks.items():
            step = seconds(lambda network=network: network(crops).sum().backward())
            with torch.no_grad():
                once = seconds(lambda network=network: network(image))
            if round_:  # the first one warms up
                steps[name].append(step)
                images[name].append(once)
    return {
        name: {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "step_seconds": float(np.median(steps[name])),
            "image_seconds": float(np.median(images[name])),
        }
        for name, network in networks.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny"], choices=("published", "tiny", "mini"))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/derainers.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {size: measure(size, arguments.side) for size in arguments.sizes}
    write_record(arguments.out, {"side": arguments.side, "sizes": results})
    print("| derainer | size | parameters, M | training step | image |\n|---|---|---|---|---|")
    for size, found in results.items():
        base = found["nafnet"]
        for name, entry in found.items():
            times = (entry[key] / base[key] for key in ("step_seconds", "image_seconds"))
            print(f"| {name} | {size} | {entry['parameters'] / 1e6:.2f} | {' | '.join(f'{x:.1f}' for x in times)} |")


if __name__ == "__main__":
    main()
