"""What does a choice in stage 2 change? Arms that start from the same stage 1, at equal steps, over several seeds.

usage: python benchmarks/self_reinforcement.py --rainy DIR --clean DIR --paired DIR [--preset cpu] [--seeds 0 1]
           [--arms twins] [--set KEY=VALUE ...] [--workdir DIR] [--out benchmarks/results/self_reinforcement.json]

twins: rewards against "continue" (no rewards) and "self-distillation" (the last output instead of the best).
acceptance: when a candidate may replace a reward. scorers: what decides which is better.
Stopped, the same command goes on. Seeds run side by side, one thread each.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from record import write_record

# Settings of stage 2 by arm; stage 1 is the same for all.
ARMS = {
    "twins": {
        "rewards": [],
        "self-distillation": ["reinforcement.source=last"],
        "continue": ["reinforcement.source=none"],
    },
    "acceptance": {
        "strictly higher": [],
        "margin 0.05": ["reward.margin=0.05"],
        "max_age 500": ["reward.max_age=500"],
    },
    "scorers": {
        "critic": [],
        "critic+decorrelation": ["reward.scorer=critic+decorrelation", "reinforcement.rescore=true"],
    },
}
METRICS = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")


def run_seed(arguments: argparse.Namespace, dataset: Path, seed: int) -> dict[str, dict[str, float]]:
    """Mean metrics over the pairs of the input, the warm start, stage 1 and each arm of stage 2."""
    from rgsud_lib import stages
    from rgsud_lib.config import load_config

    settings = [*arguments.set, f"training.seed={seed}", "training.threads=1"]
    results: dict[str, dict[str, float]] = {}
    recycled = stages.recycle(load_config(arguments.preset, settings), dataset, arguments.workdir)
    for arm, chosen in ARMS[arguments.arms].items():
        config = load_config(arguments.preset, [*settings, *chosen])
        reinforced = stages.reinforce(config, dataset, recycled, arguments.workdir)
        evaluation = stages.evaluate(config, dataset, recycled, reinforced, arguments.workdir)
        means = json.loads((evaluation / "metrics.json").read_text())["pairs"]["mean"]
        results |= {model: means[model] for model in ("input", "warm_start", "recycled") if model in means}
        results[arm] = means["reinforced"]
    return results


def table(runs: dict[int, dict[str, dict[str, float]]]) -> str:
    """Mean over the seeds, and for PSNR each seed's value."""
    rows = [f"| after | {' | '.join(METRICS)} | psnr_rgb of each seed |", f"|---|{'---|' * (len(METRICS) + 1)}"]
    for model in next(iter(runs.values())):
        means = [np.mean([run[model][metric] for run in runs.values()]) for metric in METRICS]
        each = [f"{run[model]['psnr_rgb']:.2f}" for run in runs.values()]
        cells = [
            f"{mean:.2f}" if "psnr" in metric else f"{mean:.4f}" for metric, mean in zip(METRICS, means, strict=True)
        ]
        rows.append(f"| {model} | {' | '.join(cells)} | {' / '.join(each)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rainy", required=True)
    parser.add_argument("--clean", required=True)
    parser.add_argument("--paired", required=True)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", choices=ARMS, default="twins")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--workdir", type=Path, default=Path("rgsud-runs/self_reinforcement"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/self_reinforcement.json"))
    arguments = parser.parse_args()

    from rgsud_lib import stages
    from rgsud_lib.config import load_config
    from rgsud_lib.task import log_to_stderr

    log_to_stderr()
    dataset = stages.prepare(
        load_config(arguments.preset), arguments.rainy, arguments.clean, arguments.paired, arguments.workdir
    )
    started = time.time()
    with ProcessPoolExecutor(len(arguments.seeds), mp_context=get_context("spawn"), initializer=log_to_stderr) as pool:
        jobs = {seed: pool.submit(run_seed, arguments, dataset, seed) for seed in arguments.seeds}
        runs = {seed: job.result() for seed, job in jobs.items()}
    config = load_config(arguments.preset, arguments.set).model_dump(mode="json")
    write_record(
        arguments.out,
        {"arms": ARMS[arguments.arms], "seconds": round(time.time() - started), "config": config, "seeds": runs},
    )
    print(table(runs))


if __name__ == "__main__":
    main()
