"""How good is each candidate source, and what would the best pick of all gain?

usage: python benchmarks/candidates.py --pairs DIR --workdir RUN [--every 2] [--out benchmarks/results/candidates.json]

For a finished run and pairs whose rainy images it trained on: PSNR RGB of each source of `reward.candidates` by stage
2's weights with stage 1's pool as the present rewards, of the oracle over them, and of what each scorer picks; the
share of candidates that the fidelity guard refuses beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from record import write_record
from safetensors.torch import load_file

from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Config
from rgsud_lib.data.decode import decode
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.data.manifest import content_id
from rgsud_lib.evaluation.metrics import psnr_rgb
from rgsud_lib.inference import derain, load_derainer
from rgsud_lib.rewards import build_scorer
from rgsud_lib.rewards.guard import Guard
from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.training.candidates import SOURCES, Candidates

SCORERS = ("rain_layer", "decorrelation")


def newest(workdir: Path, stage: str) -> Path:
    return max(workdir.glob(f"stages/{stage}-*/bundle.json"), key=lambda path: path.stat().st_mtime).parent


def networks(folder: Path) -> list:
    """EMA and present derainer of a finished stage, as functions of an image batch."""
    averaged, present = (load_derainer(folder / "derainer.safetensors") for _ in range(2))
    weights = load_file(folder / "networks.safetensors")
    prefix = "derainer."
    present.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return [lambda images, network=network: derain(network, images, 512, 32) for network in (averaged, present)]


def stage_pool(folder: Path) -> RewardPool:
    index = json.loads((folder / "pool" / "index.json").read_text())
    pool = RewardPool(folder / "pool", index["scorer"], index["version"])
    pool.restore(index)
    return pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with rain/ and clean/, same names")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/candidates.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recycled, reinforced = (newest(arguments.workdir, stage) for stage in ("recycle", "reinforce"))
    open_bundle(reinforced, "reinforced")
    averaged, present = networks(reinforced)
    pool, guard = stage_pool(recycled), Guard()
    scorers = [build_scorer(name, Config(), []) for name in SCORERS]
    quality, scores, refused = [], [], []
    for path in sorted((arguments.pairs / "rain").iterdir())[:: arguments.every]:
        image = decode(path.read_bytes(), 10**8)
        if content_id(image) not in pool.entries:
            continue
        rainy = to_tensor(image)
        clean = to_tensor(decode((arguments.pairs / "clean" / path.name).read_bytes(), 10**8))
        reward = to_tensor(pool.image(content_id(image)))
        made = Candidates(rainy, [reward], averaged, present, scorers[0])
        outputs = [reward, *(to_tensor(to_uint8(make(made))) for make in SOURCES.values())]
        quality.append([float(psnr_rgb(output, clean)) for output in outputs])
        scores.append([[float(scorer(output, rainy)) for output in outputs] for scorer in scorers])
        refused.append([not bool(guard(output, rainy)) for output in (*outputs, clean)])
    quality, scores = np.array(quality), np.array(scores)
    names = ["stage 1's reward", *SOURCES]
    rows = np.arange(len(quality))
    results = {
        "images": len(quality),
        "psnr_rgb": dict(zip(names, quality.mean(0).tolist(), strict=True)),
        "oracle_psnr_rgb": float(quality.max(1).mean()),
        "picked_psnr_rgb": {
            name: float(quality[rows, scores[:, number].argmax(1)].mean()) for number, name in enumerate(SCORERS)
        },
        "refused_by_guard": dict(zip([*names, "clean image"], np.mean(refused, axis=0).tolist(), strict=True)),
    }
    print(json.dumps(results, indent=1))
    write_record(arguments.out, results)


if __name__ == "__main__":
    main()
