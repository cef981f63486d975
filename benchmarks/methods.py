"""Does each unpaired method learn? A short stage 1 of each from the same warm start: PSNR before and after, losses.

usage: python benchmarks/methods.py --rainy DIR --clean DIR --paired DIR [--methods csud nlcl ...] [--warm 300]
           [--steps 200] [--every 5] [--seed 0] [--set KEY=VALUE ...] [--workdir DIR]
           [--out benchmarks/results/methods.json]

Sizes and the rest are those of preset cpu; rewards are scored by rain_layer, which needs no training. Too short to
say which method is better: it shows that signs, weights and schedule are sound. Stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from record import write_record

SETTINGS = ["critic.enabled=false", "reward.scorer=rain_layer", "training.threads=1", "training.log_every=10"]
WINDOW = 5  # rows of the log that are averaged at the start and at the end


def mean_psnr(model: Path, pairs: Path, every: int, config: object) -> float:
    """PSNR RGB in dB of 8-bit outputs, mean over every so many of the pairs."""
    from rgsud_lib.data.decode import decode
    from rgsud_lib.data.images import to_tensor
    from rgsud_lib.evaluation.metrics import psnr_rgb
    from rgsud_lib.inference import derain_image, load_derainer

    derainer, values = load_derainer(model), []
    for rainy in sorted((pairs / "rain").iterdir())[::every]:
        read = [decode((pairs / side / rainy.name).read_bytes(), config.data.max_pixels) for side in ("rain", "clean")]
        output = derain_image(derainer, read[0], config.evaluation.tile, config.evaluation.overlap)
        values.append(psnr_rgb(to_tensor(output), to_tensor(read[1])).item())
    return float(np.mean(values))


def losses(log: Path) -> dict[str, tuple[float, float]]:
    """Each loss of stage 1: mean over the first and over the last rows."""
    from rgsud_lib.training.curves import read_log

    rows = [row for row in read_log(log) if row["phase"] == "recycle"]
    names = [name for name in rows[-1] if name.startswith("loss/")]
    series = {name.removeprefix("loss/"): [row[name] for row in rows if name in row] for name in names}
    return {name: (float(np.mean(seen[:WINDOW])), float(np.mean(seen[-WINDOW:]))) for name, seen in series.items()}


def train(name: str, dataset: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Stage 1 of one method, and what it did."""
    from rgsud_lib import stages
    from rgsud_lib.config import load_config

    lengths = [f"warm_start.steps={arguments.warm}", f"training.steps={arguments.steps}"]
    chosen = [*SETTINGS, *lengths, f"training.seed={arguments.seed}", f"method.name={name}", *arguments.set]
    config, started = load_config("cpu", chosen), time.time()
    folder = stages.recycle(config, dataset, arguments.workdir)
    seconds = round(time.time() - started)
    models = {"warm start": "warm_start.safetensors", "stage 1": "derainer.safetensors"}
    psnr = {when: mean_psnr(folder / file, arguments.paired, arguments.every, config) for when, file in models.items()}
    return {"seconds": seconds, "psnr_rgb": psnr, "losses": losses(folder / "log.jsonl")}


def table(found: dict[str, dict]) -> str:
    rows = ["| method | warm start | stage 1 | losses, first to last |", "|---|---|---|---|"]
    for name, result in found.items():
        psnr = " | ".join(f"{value:.2f}" for value in result["psnr_rgb"].values())
        moved = ", ".join(f"{loss} {a:.3g} -> {b:.3g}" for loss, (a, b) in result["losses"].items())
        rows.append(f"| `{name}` | {psnr} | {moved} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--rainy", "--clean"):
        parser.add_argument(name, required=True)
    parser.add_argument("--paired", type=Path, required=True)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--warm", type=int, default=300)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=5, help="of the pairs, this many-th is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--workdir", type=Path, default=Path("rgsud-runs/methods"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/methods.json"))
    arguments = parser.parse_args()

    from rgsud_lib import stages
    from rgsud_lib.config import load_config
    from rgsud_lib.methods import METHODS
    from rgsud_lib.task import log_to_stderr

    log_to_stderr()
    torch.set_num_threads(1)
    dataset = stages.prepare(load_config("cpu", SETTINGS), arguments.rainy, arguments.clean, None, arguments.workdir)
    found = {name: train(name, dataset, arguments) for name in arguments.methods or METHODS}
    lengths = {
        "warm_start_steps": arguments.warm,
        "steps": arguments.steps,
        "every": arguments.every,
        "seed": arguments.seed,
    }
    write_record(arguments.out, {**lengths, "set": arguments.set, "methods": found})
    print(table(found))


if __name__ == "__main__":
    main()
