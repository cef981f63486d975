"""A 12-megapixel photograph on one CPU core: time, peak memory, seams; and which tiles and batches are quickest.

usage: python benchmarks/inference.py --model PATH --image FILE [--size 4000x3000]
           [--out benchmarks/results/inference.json]

The photograph is scaled to --size. Seams: the largest and mean difference from the whole image at once, in grey levels
of 255, on its 1024x768 middle. Times are the process's own, which other jobs on the machine stretch less.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import write_record

from rgsud_lib.inference import Derainer, derain_image

BATCHES, SIDE = (1, 4), (321, 481)


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_megabytes() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def large_photograph(derainer: Derainer, image: np.ndarray) -> dict[str, float]:
    before, start = peak_megabytes(), time.perf_counter()
    used = processor_seconds(lambda: derainer(image))
    seconds = time.perf_counter() - start
    peak = {"peak_rss_mb": peak_megabytes(), "peak_rss_before_mb": before}
    return {"tile": derainer.tile, "seconds": seconds, "processor_seconds": used, **peak}


def seams(derainer: Derainer, image: np.ndarray) -> dict[str, dict[str, float]]:
    whole = derain_image(derainer.network, image, 1024, 0).astype(int)
    found = {}
    for tile in (256, 384, 512, 768):
        difference = np.abs(derain_image(derainer.network, image, tile, derainer.overlap).astype(int) - whole)
        found[str(tile)] = {"max": int(difference.max()), "mean": float(difference.mean())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--size", default="4000x3000", help="width x height")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/inference.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    derainer = Derainer.load(arguments.model, device="cpu")
    width, height = map(int, arguments.size.split("x"))
    with Image.open(arguments.image) as opened:
        image = np.array(opened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    results = {"size": arguments.size, "photograph": large_photograph(derainer, image)}
    top, left = (height - 768) // 2, (width - 1024) // 2
    results["seams_of_255"] = seams(derainer, image[top : top + 768, left : left + 1024])
    part = image[:1300, :2000]
    results["processor_seconds_by_tile"] = {
        str(tile): processor_seconds(lambda tile=tile: derain_image(derainer.network, part, tile, 32))
        for tile in (256, 512, 1024)
    }
    stack = np.stack([image[: SIDE[0], : SIDE[1]]] * max(BATCHES))
    results["processor_seconds_by_batch"] = {
        str(count): processor_seconds(lambda count=count: derainer.rgb(stack[:count])) / count for count in BATCHES
    }
    write_record(arguments.out, results)
    for name, value in results.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
