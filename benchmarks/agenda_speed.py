"""How fast the agenda's machine trains, scores and infers."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rgsud_lib.config import Config, DerainerConfig
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.derainer_sizes import SIZES
from rgsud_lib.networks import build_derainer
from rgsud_lib.rewards import build_scorer
from rgsud_lib.tracking import StageRun
from rgsud_lib.training.run import train_recycle, train_reinforce

SCORERS = ("critic", "decorrelation", "rain_layer", "niqe", "piqe")
REPEATS = 5
SIDES = {"Rain100L": (321, 481), "1 megapixel": (1024, 1024)}


class Rows(StageRun):
    """Keeps what is sent to the tracking server: the log's rows with their times."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def log_rows(self, rows: list[dict[str, Any]]) -> None:
        self.rows += [row for row in rows if "time/step_seconds_per_step" in row]


def phase_seconds(config: Config, dataset: Path, folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Seconds of a step by phase and part: both stages are really trained, `steps` long a phase, nothing is kept."""
    shutil.rmtree(folder, ignore_errors=True)
    every = {"log_every": max(1, steps // 4), "checkpoint_every": steps, "steps": steps}
    short = config.model_copy(
        update={
            "training": config.training.model_copy(update=every),
            "warm_start": config.warm_start.model_copy(update={"steps": steps}),
            "reinforcement": config.reinforcement.model_copy(update={"steps": steps}),
        }
    )
    run, recycled, reinforced = Rows(), folder / "recycle", folder / "reinforce"
    for each in (recycled, reinforced):
        each.mkdir(parents=True)
    train_recycle(short, dataset, recycled, run)
    train_reinforce(short, dataset, recycled, reinforced, run)
    shutil.rmtree(folder)
    return {phase: _parts(run.rows, phase) for phase in ("warm_start", "recycle", "reinforce")}


def _parts(rows: list[dict[str, Any]], phase: str) -> dict[str, float]:
    """Means over the phase's rows, the first left out: it warms up."""
    own = [row for row in rows if row["phase"] == phase][1:]
    parts = {
        part: statistics.mean(row[f"time/{part}_seconds_per_step"] for row in own)
        for part in ("data", "step", "scoring")
    }
    return {**parts, "all": sum(parts.values())}


def scoring(config: Config, dataset: Path) -> dict[str, float]:
    """Seconds to score one of the rainy photographs, by scorer."""
    data, device = Dataset.open(dataset), config.training.device
    clean = data.images("clean", "train")
    rainy = to_tensor(data.image(data.select("rainy", "train")[0].id))
    output = (0.9 * rainy).to(device)
    scorers = {name: build_scorer(name, config, clean, data.critic, device) for name in SCORERS}
    rainy = rainy.to(device)
    return {name: seconds(lambda scorer=scorer: scorer(output, rainy), device) for name, scorer in scorers.items()}


def inference(device: str, size: str) -> dict[str, Any]:
    """Seconds for one image by derainer, image size and precision."""
    found: dict[str, Any] = {}
    for name in SIZES:
        network = build_derainer(DerainerConfig(name=name, size=size)).to(device, memory_format=torch.channels_last)
        found[name] = {
            f"{what}, {precision}": _once(network.eval(), sides, device, precision)
            for what, sides in SIDES.items()
            for precision in ("float32", "bfloat16")
            if device == "cuda" or (what, precision) == ("Rain100L", "float32")
        }
    return {"size": size, "seconds_per_image": found}


@torch.no_grad()
def _once(network: nn.Module, sides: tuple[int, int], device: str, precision: str) -> float:
    image = torch.rand(1, 3, *sides, device=device).to(memory_format=torch.channels_last)
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        return seconds(lambda: network(image), device)


def seconds(work: Callable[[], object], device: str) -> float:
    """The median of several times, after two more that warm up."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return statistics.median([once() for _ in range(REPEATS + 2)][2:])
