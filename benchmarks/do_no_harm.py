"""What is left of clean images when they are derained? The mean squared error over all of them, as PSNR.

usage: python benchmarks/do_no_harm.py --dataset BUNDLE --models MODEL MODEL ...
           [--out benchmarks/results/do_no_harm.json]

Only images that the dataset's training did not see count: BUNDLE is the run's `stages/prepare-*`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from record import write_record
from tqdm import tqdm

from rgsud_lib.data.manifest import Dataset
from rgsud_lib.inference import derain_image, load_derainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/do_no_harm.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Dataset.open(arguments.dataset)
    images = [data.image(record.id) for record in data.select("clean", "validation")]
    results = {}
    for path in arguments.models:
        model = load_derainer(path)
        errors = [
            np.mean((derain_image(model, image, 512, 32).astype(float) - image) ** 2)
            for image in tqdm(images, desc=path.parent.name, disable=None)
        ]
        results[f"{path.parent.name.partition('-')[0]}/{path.stem}"] = float(10 * np.log10(255**2 / np.mean(errors)))
    write_record(arguments.out, {"images": len(images), "psnr_rgb_against_input": results})
    print("\n".join(f"{name}: {value:.1f} dB" for name, value in results.items()))


if __name__ == "__main__":
    main()
