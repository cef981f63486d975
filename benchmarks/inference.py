"""Time, peak memory and tiled-against-whole difference of `derain` on one CPU core.

python benchmarks/inference.py [--model PATH] [--image FILE] [--size 4000x3000] [--tile 512] [--overlap 32]
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from rgsud_lib.config import load_config
from rgsud_lib.inference import derain_image, load_derainer
from rgsud_lib.networks import build_derainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a trained model; else the cpu preset's network with random weights")
    parser.add_argument("--image", type=Path, help="a photograph, scaled to --size; else noise")
    parser.add_argument("--size", default="4000x3000", help="width x height of the large image")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = load_derainer(given.model) if given.model else random_derainer()
    width, height = map(int, given.size.split("x"))
    large = picture(given.image, width, height)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {given.threads} thread(s)")
    start = time.perf_counter()
    derain_image(model, large, given.tile, given.overlap)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{width}x{height}, tile {given.tile}, overlap {given.overlap}: {seconds:.1f} s, peak RSS {peak:.0f} MB")
    small = picture(given.image, 1024, 768)
    whole = derain_image(model, small, 1024, 0).astype(int)
    for tile in (256, given.tile, 768):
        difference = np.abs(derain_image(model, small, tile, given.overlap).astype(int) - whole)
        print(f"1024x768, tile {tile} against whole: max {difference.max()}, mean {difference.mean():.3f} of 255")


def random_derainer() -> nn.Module:
    torch.manual_seed(0)
    model = build_derainer(load_config("cpu").derainer)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


def picture(path: Path | None, width: int, height: int) -> np.ndarray:
    if path is None:
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
