"""What does SRL-Derain do to single photographs? PSNR of doing nothing, of the pseudo-reference, of the agents.

usage: python benchmarks/srl_derain.py --paired ../shared/data/rain100L [--every 1] [--agents-every 5] [--pictures DIR]
           [--out benchmarks/results/srl_derain.json]

`--every 5` takes every fifth pair; the agents, who take most of the time, have their own. The clean images are
asked for rain too: what is found there is a false alarm.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import write_record
from torch import Tensor


def measure(rainy: Tensor, clean: Tensor, with_agents: bool) -> tuple[dict[str, float], Tensor]:
    """PSNR RGB in dB of 8-bit outputs, seconds, false alarms; the best output there is."""
    from rgsud_lib.data.images import to_tensor, to_uint8
    from rgsud_lib.evaluation.metrics import psnr_rgb
    from rgsud_lib.methods.rain_mask import find_rain
    from rgsud_lib.methods.srl_derain import derain_one, pseudo_derained

    def psnr(image: Tensor) -> float:
        return psnr_rgb(to_tensor(to_uint8(image)), clean).item()

    mask = find_rain(rainy)
    output = pseudo_derained(rainy, mask)
    found = {"input": psnr(rainy), "reference": psnr(output), "rain": mask.where.float().mean().item()}
    found["false_alarm"] = float(find_rain(clean).where.any())
    if with_agents:
        started = time.process_time()
        output = derain_one(rainy)
        found |= {"agents": psnr(output), "cpu_seconds": time.process_time() - started}
    return found, output


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of what all rows have; how many pairs there are, how many got worse, and in how many no rain was found."""
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    return {
        "pairs": len(rows),
        **{name: float(np.mean([row[name] for row in rows])) for name in shared},
        "worse": sum(row["reference"] < row["input"] - 0.05 for row in rows),
        "untouched": sum(row["rain"] == 0 for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paired", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--agents-every", type=int, default=5)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/srl_derain.json"))
    arguments = parser.parse_args()

    from rgsud_lib.config import DataConfig
    from rgsud_lib.data.decode import decode
    from rgsud_lib.data.images import to_tensor, to_uint8

    torch.set_num_threads(1)
    rows = {}
    for number, file in enumerate(sorted((arguments.paired / "rain").iterdir())):
        if number % arguments.every:
            continue
        sides = (
            decode((arguments.paired / side / file.name).read_bytes(), DataConfig().max_pixels)
            for side in ("rain", "clean")
        )
        rainy, clean = (to_tensor(side) for side in sides)
        rows[file.name], output = measure(rainy, clean, number % arguments.agents_every == 0)
        print(file.name, {name: round(value, 2) for name, value in rows[file.name].items()}, flush=True)
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(to_uint8(torch.cat([rainy, output, clean], dim=3))[0]).save(arguments.pictures / file.name)
    learnt = [row for row in rows.values() if "agents" in row]
    summary = {"all": means(list(rows.values())), "with agents": means(learnt)}
    write_record(arguments.out, {"mean": summary, "pairs": rows})
    for which, mean in summary.items():
        print(which, {name: round(value, 3) for name, value in mean.items()})


if __name__ == "__main__":
    main()
