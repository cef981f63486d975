"""Which reward ranks outputs as PSNR does? Per-image rank correlation, and what picking by score gains.

usage: python benchmarks/reward_ranking.py --pairs DIR --models MODEL MODEL ... [--scorers decorrelation rain_layer]
           [--every 2] [--out benchmarks/results/reward_ranking.json]

Candidates of an image are the outputs of all models and, to catch rewards that like doing nothing, the input itself
and half of the rain. `--every 2` takes every second pair.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from record import write_record
from scipy.stats import spearmanr

from rgsud_lib.data.decode import decode
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.evaluation.metrics import psnr_rgb
from rgsud_lib.inference import derain, load_derainer
from rgsud_lib.rewards import build_scorer


def score_pair(rainy: torch.Tensor, clean: torch.Tensor, models: list, scorers: list) -> tuple[list, list]:
    """PSNR of each candidate, and each scorer's scores of them."""
    outputs = [to_tensor(to_uint8(derain(model, rainy, 512, 32))) for model in models]
    candidates = [*outputs, rainy, (outputs[-1] + rainy) / 2]
    quality = [float(psnr_rgb(candidate, clean)) for candidate in candidates]
    return quality, [[float(scorer(candidate, rainy)) for candidate in candidates] for scorer in scorers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with rain/ and clean/, same names")
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--scorers", nargs="+", default=["decorrelation", "rain_layer"])
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reward_ranking.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = [load_derainer(path) for path in arguments.models]
    clean_images = [decode(path.read_bytes(), 10**8) for path in sorted((arguments.pairs / "clean").iterdir())]
    scorers = [build_scorer(name, clean_images) for name in arguments.scorers]
    rows = []
    for path in sorted((arguments.pairs / "rain").iterdir())[:: arguments.every]:
        rainy, clean = (
            to_tensor(decode((arguments.pairs / side / path.name).read_bytes(), 10**8)) for side in ("rain", "clean")
        )
        rows.append(score_pair(rainy, clean, models, scorers))
    quality = np.array([row[0] for row in rows])
    results = {
        "pairs": len(rows),
        "mean_psnr_rgb": dict(
            zip([*map(str, arguments.models), "input", "half"], quality.mean(0).tolist(), strict=True)
        ),
        "oracle_psnr_rgb": float(quality.max(1).mean()),
    }
    print("| scorer | rank correlation with PSNR | PSNR RGB of its picks |\n|---|---|---|")
    for number, scorer in enumerate(scorers):
        scores = np.array([row[1][number] for row in rows])
        correlation = np.mean([spearmanr(s, q).statistic for s, q in zip(scores, quality, strict=True)])
        picked = quality[np.arange(len(rows)), scores.argmax(1)].mean()
        results[scorer.name] = {"spearman": float(correlation), "picked_psnr_rgb": float(picked)}
        print(f"| {scorer.name} | {correlation:.2f} | {picked:.2f} |")
    write_record(arguments.out, results)


if __name__ == "__main__":
    main()
