"""What does the fidelity guard let through, and does it change which candidate a reward picks?

usage: python benchmarks/guard.py --pairs DIR --models MODEL MODEL ... [--scorers decorrelation rain_layer] [--every 2]
           [--out benchmarks/results/guard.json]

For every second pair: the share of true clean images, of the models' outputs and of spoiled clean images that the guard
trusts at strength 1; and for each scorer the mean per-image rank correlation with PSNR RGB over the models' outputs and
the PSNR of its picks, without the guard and with it (untrusted candidates rank behind all trusted ones).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from record import write_record
from scipy.stats import spearmanr

from rgsud_lib.config import Config
from rgsud_lib.data.decode import decode
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.evaluation.metrics import psnr_rgb
from rgsud_lib.inference import derain, load_derainer
from rgsud_lib.networks.layers import low_pass
from rgsud_lib.rewards import build_scorer
from rgsud_lib.rewards.guard import Guard


def spoiled(clean: torch.Tensor) -> dict[str, torch.Tensor]:
    cast = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    made = {f"blurred, sigma {sigma}": low_pass(clean, 9, sigma) for sigma in (0.5, 0.7, 1.0, 1.5)}
    made |= {f"colour cast of {shift}": clean + shift * cast for shift in (0.01, 0.02, 0.03)}
    made |= {"brighter by 0.02": clean + 0.02, "darker by 0.02": clean - 0.02}
    return {name: image.clamp(0, 1) for name, image in made.items()}


def ranking(scores: np.ndarray, quality: np.ndarray) -> dict[str, float]:
    rho = np.mean([spearmanr(s, q).statistic for s, q in zip(scores, quality, strict=True)])
    return {"spearman": float(rho), "picked_psnr_rgb": float(quality[np.arange(len(quality)), scores.argmax(1)].mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with rain/ and clean/, same names")
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--scorers", nargs="+", default=["decorrelation", "rain_layer"])
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/guard.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = [load_derainer(path) for path in arguments.models]
    guard, scorers = Guard(), [build_scorer(name, Config(), []) for name in arguments.scorers]
    trusted: dict[str, list[bool]] = {}
    quality, scores, kept = [], [], []
    for path in sorted((arguments.pairs / "rain").iterdir())[:: arguments.every]:
        rainy, clean = (
            to_tensor(decode((arguments.pairs / side / path.name).read_bytes(), 10**8)) for side in ("rain", "clean")
        )
        outputs = [to_tensor(to_uint8(derain(model, rainy, 512, 32))) for model in models]
        for name, image in {"clean image": clean, **spoiled(clean)}.items():
            trusted.setdefault(name, []).append(bool(guard(image, rainy)))
        quality.append([float(psnr_rgb(output, clean)) for output in outputs])
        scores.append([[float(scorer(output, rainy)) for output in outputs] for scorer in scorers])
        kept.append([bool(guard(output, rainy)) for output in outputs])
    quality, scores, kept = np.array(quality), np.array(scores), np.array(kept)
    names = [f"{path.parent.name}/{path.stem}" for path in arguments.models]
    results = {
        "images": len(quality),
        "trusted": {name: float(np.mean(values)) for name, values in trusted.items()},
        "trusted_outputs": dict(zip(names, kept.mean(0).tolist(), strict=True)),
        "mean_psnr_rgb": quality.mean(0).tolist(),
        "scorers": {
            scorer.name: {
                "without the guard": ranking(scores[:, number], quality),
                "with the guard": ranking(np.where(kept, scores[:, number], scores[:, number] - 1e6), quality),
            }
            for number, scorer in enumerate(scorers)
        },
    }
    print(json.dumps(results, indent=1))
    write_record(arguments.out, results)


if __name__ == "__main__":
    main()
