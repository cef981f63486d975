"""The items of gpu_agenda.sh, which says how to run it: each leaves gpu_NAME.json, and is skipped where that is there.

usage: python benchmarks/gpu_agenda.py --data DIR --work DIR [--device cuda] [--only NAME ...]

The order is the value. The first item measures the speed, from which the steps of all trainings follow, so that the
main one takes `Scale.minutes`. All long work is made of stages, which go on from their own checkpoints.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from agenda_speed import inference, phase_seconds, scoring
from agenda_weights import write_weights
from record import write_record

from rgsud_lib import stages
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.prepare import prepare_dataset
from rgsud_lib.errors import Preempted
from rgsud_lib.tables import Arm, Request, Row, make_table
from rgsud_lib.tables.arms import Job, Outcome, run_job
from rgsud_lib.tables.definitions import CONTINUE, LAST, REWARDS
from rgsud_lib.tables.sources import find_sets
from rgsud_lib.task import log_to_stderr

RESULTS = Path("benchmarks/results")
SET = "Rain100L"
log = logging.getLogger("rgsud")


@dataclass(frozen=True)
class Scale:
    """How large all is: settings, the minutes of (warm start, stage 1, stage 2), what of the plug-in table is made."""

    settings: str
    minutes: tuple[float, float, float]
    rehearsal: int  # steps of each phase from which the speed is taken
    derainers: str  # size of those whose inference is timed
    plug_in: tuple[str, ...] = ()  # rows; empty: all
    threads: int = 1


SCALES = {
    "cuda": Scale(
        # 6.6 M parameters, of which a half-precision file has 13 MB.
        """derainer.width=64 derainer.encoder=[2,2,1] derainer.middle=2 derainer.decoder=[1,2,2] method.unet_width=16
        method.generator_width=32 method.discriminator_width=32 method.discriminator_layers=3
        warm_start.batch=16 warm_start.crop=128 training.batch=16 training.crop=128 training.ema_decay=0.999
        training.checkpoint_every=500 training.validate_every=1000 evaluation.tile=1024 evaluation.overlap=64""",
        minutes=(5.0, 3.0, 5.0),
        rehearsal=60,
        derainers="published",
        threads=8,
    ),
    "cpu": Scale(
        """derainer.size=mini derainer.width=4 method.unet_width=4 method.unet_depth=1 method.generator_width=4
        method.generator_blocks=1 method.discriminator_width=4 warm_start.batch=2 warm_start.crop=32 training.batch=2
        training.crop=32 training.checkpoint_every=4 training.validate_every=100 training.validation_images=1
        critic.steps=10 critic.crop=32 critic.width=4""",
        minutes=(0.01, 0.01, 0.01),
        rehearsal=4,
        derainers="mini",
        plug_in=("csud",),
    ),
}


@dataclass
class Agenda:
    """Where things are; `data` holds rain100L/ and clean_bsds/."""

    data: Path
    work: Path
    device: str

    @property
    def scale(self) -> Scale:
        return SCALES[self.device]

    @property
    def basic(self) -> tuple[str, ...]:
        """Settings of all items, but for the steps."""
        return (*self.scale.settings.split(), f"training.device={self.device}")

    @property
    def settings(self) -> tuple[str, ...]:
        """With the steps that fit into the main training's minutes at the speed that was measured first."""
        return (*self.basic, *self.steps(1.0))

    def steps(self, share: float) -> tuple[str, ...]:
        speed = self.result("throughput")["seconds_per_step"]
        sections = {"warm_start": "warm_start", "recycle": "training", "reinforce": "reinforcement"}
        minutes = zip(sections.items(), self.scale.minutes, strict=True)
        return tuple(f"{name}.steps={max(4, round(share * 60 * m / speed[phase]))}" for (phase, name), m in minutes)

    def config(self, *more: str) -> Config:
        return load_config("cpu", [*self.basic, *more])

    def result(self, name: str) -> dict[str, Any] | None:
        """What an item left, here or in the repository (a miniature does not count there)."""
        folders = [self.work / "results", *([RESULTS] if self.device == "cuda" else [])]
        files = (folder / f"gpu_{name}.json" for folder in folders)
        return next((json.loads(file.read_text()) for file in files if file.is_file()), None)

    @cached_property
    def dataset(self) -> Path:
        """Rain100L's rainy images and the clean photographs, prepared; pictures left behind are read again."""
        (source,), _ = find_sets(self.data, [SET])
        sources = source.rainy, source.clean, source.paired
        for folder in self.work.glob("stages/prepare-*"):
            if (folder / "bundle.json").is_file() and not (folder / "images").is_dir():
                prepare_dataset(self.config().data, *sources, self.work / "again")
                (self.work / "again" / "images").rename(folder / "images")
        return Path(stages.prepare(self.config(), *sources, self.work))

    def outcomes(self, row: Row, seed: int = 0) -> list[Outcome]:
        threads = f"training.threads={self.scale.threads}"
        row = Row(row.name, (*row.settings, threads), row.arms)
        return run_job(Job(SET, row, seed, "cpu", self.settings, self.dataset, self.work))


def throughput(agenda: Agenda) -> dict[str, Any]:
    """Seconds of a step in each phase, and of deriving rewards from a photograph with each scorer."""
    config = agenda.config(f"training.threads={agenda.scale.threads}")
    seconds = phase_seconds(config, agenda.dataset, agenda.work / "rehearsal", agenda.scale.rehearsal)
    return {
        "settings": agenda.basic,
        "seconds_per_step": {phase: parts["all"] for phase, parts in seconds.items()},
        "parts": seconds,
        "scoring_seconds_per_image": scoring(config, agenda.dataset),
    }


def training(row: Row, seed: int, agenda: Agenda) -> dict[str, Any]:
    """Means over the pairs of doing nothing, the warm start, stage 1 and the row's arms."""
    found = {
        outcome.arm: {
            **{name: float(np.mean([image[name] for image in outcome.images.values()])) for name in _metrics(outcome)},
            "steps": outcome.steps,
            "seconds": outcome.seconds,
        }
        for outcome in agenda.outcomes(row, seed)
    }
    return {"settings": [*agenda.settings, *row.settings], "seed": seed, "arms": found}


def _metrics(outcome: Outcome) -> list[str]:
    return list(next(iter(outcome.images.values())))


def weights(agenda: Agenda) -> dict[str, Any]:
    """The main training's last weights, none picked by its pairs, as a half-precision file with its card."""
    *_, last = agenda.outcomes(WARM, 0)
    trained = agenda.result("rain100L_rewards")
    config = agenda.config(*agenda.settings)
    return write_weights(config, agenda.dataset, Path(last.model), trained, agenda.work / "weights")


def plug_in(agenda: Agenda) -> dict[str, Any]:
    """`rgsud bench table plug-in`, every method in a fifth of the main training's steps."""
    settings, rows = (*agenda.basic, *agenda.steps(0.2)), agenda.scale.plug_in
    request = Request("plug-in", agenda.data, agenda.work, "cpu", settings, seeds=(0,), rows=rows, sets=(SET,))
    text, page = make_table(request)
    record = json.loads(page.with_suffix(".json").read_text())
    outcomes = [{name: value for name, value in each.items() if name != "model"} for each in record["outcomes"]]
    return {**record, "table": text, "outcomes": outcomes}


def scratch(agenda: Agenda) -> dict[str, Any]:
    """As in the paper, no drawn rain: stage 1 has the warm start's steps on top."""
    steps = sum(int(setting.partition("=")[2]) for setting in agenda.steps(1.0)[:2])
    row = Row("from scratch", ("warm_start.enabled=false", f"training.steps={steps}"), (REWARDS,))
    return training(row, 0, agenda)


def controls(arm: Arm) -> Callable[[Agenda], dict[str, Any]]:
    return partial(training, Row("warm start", arms=(arm,)), 0)


WARM = Row("warm start", arms=(REWARDS,))
ITEMS: dict[str, Callable[[Agenda], dict[str, Any]]] = {
    "throughput": throughput,
    "rain100L_rewards": partial(training, WARM, 0),
    "weights": weights,
    "rain100L_continue": controls(CONTINUE),
    "rain100L_scratch": scratch,
    "inference": lambda agenda: inference(agenda.device, agenda.scale.derainers),
    "rain100L_self_distillation": controls(LAST),
    "plug_in": plug_in,
    "rain100L_rewards_seed1": partial(training, WARM, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", choices=SCALES, default="cuda")
    parser.add_argument("--only", nargs="+", choices=ITEMS, default=list(ITEMS))
    arguments = parser.parse_args()
    log_to_stderr()
    agenda = Agenda(arguments.data, arguments.work, arguments.device)
    for name in arguments.only:
        if agenda.result(name) is not None:
            log.info("agenda: %s is there", name)
            continue
        log.info("agenda: %s", name)
        try:
            found = {**ITEMS[name](agenda), "command": "benchmarks/gpu_agenda.sh"}
            write_record(agenda.work / "results" / f"gpu_{name}.json", found)
        except Preempted as stopped:
            log.info("agenda: %s", stopped)
            sys.exit(124)


if __name__ == "__main__":
    main()
