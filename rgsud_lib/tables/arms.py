"""One row of a table for one seed: stage 1, then each arm's stage 2, and the final weights' scores on the pairs.

All of it are ordinary stages in the workdir, so what was finished before is taken from there. No checkpoint is picked:
the last weights count, and the pairs are looked at once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rgsud_lib import stages
from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Config, digest_of, load_config
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import DataError
from rgsud_lib.evaluation.evaluate import MODEL_FILES, Evaluation, list_cases, load_model, score_case
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.files import write_json
from rgsud_lib.tables.definitions import Arm, Row
from rgsud_lib.training.runtime import choose_device

log = logging.getLogger("rgsud")
INPUT = "doing nothing"
BEFORE = {"warm_start": "warm start", "recycled": "stage 1"}  # what the arms start from, by evaluate.py's names


@dataclass(frozen=True)
class Job:
    """A row on one set with one seed; `dataset` is the set's bundle in the workdir."""

    set: str
    row: Row
    seed: int
    preset: str
    settings: tuple[str, ...]
    dataset: Path
    workdir: Path

    def config(self, *more: str) -> Config:
        """Its configuration with an arm's settings on top; tables are for comparing, so a CPU has one thread."""
        seed = f"training.seed={self.seed}"
        return load_config(self.preset, [*self.settings, "training.threads=1", seed, *self.row.settings, *more])


@dataclass(frozen=True)
class Outcome:
    """An arm's result: metrics by image, optimiser steps of stage 2, and the seconds that they took."""

    set: str
    row: str
    arm: str
    seed: int
    images: dict[str, dict[str, float]]
    steps: int = 0
    seconds: float | None = None
    model: str = ""
    settings: tuple[str, ...] = ()


def run_job(job: Job) -> list[Outcome]:
    """The outcomes of doing nothing, the warm start, stage 1 and each arm, in this order.

    Raises DataError: an arm that should take as long as another one whose time is not known.
    """
    config = job.config()
    recycled = Path(stages.recycle(config, job.dataset, job.workdir))
    models: dict[str, Path | None] = {INPUT: None}
    for name, shown in BEFORE.items():
        file = recycled / MODEL_FILES[name][1]
        if file.is_file():
            models[shown] = file
    outcomes = [_outcome(job, name, file) for name, file in models.items()]
    seconds: dict[str, float | None] = {}
    for arm in job.row.arms:
        log.info("table: %s, %s, seed %d, %s", job.set, job.row.name, job.seed, arm.name)
        settings = arm.settings
        if arm.as_long_as:
            settings = (*settings, f"reinforcement.steps={_steps_in(job, arm, seconds)}")
        arm_config = job.config(*settings)
        reinforced, seconds[arm.name] = _reinforce(job, arm_config, recycled)
        facts = {"steps": arm_config.reinforcement.steps, "seconds": seconds[arm.name], "settings": settings}
        outcomes.append(_outcome(job, arm.name, reinforced / MODEL_FILES["reinforced"][1], **facts))
    return outcomes


def _steps_in(job: Job, arm: Arm, seconds: dict[str, float | None]) -> int:
    """Steps for which the arm, at the pace of the one with its settings, takes as long as the other."""
    other = job.config(*next(each.settings for each in job.row.arms if each.name == arm.as_long_as))
    theirs, ours = seconds[arm.as_long_as], seconds[job.row.pace(arm).name]
    if not theirs or not ours:
        raise DataError(
            f"{job.workdir} has stages of this table that were trained without it, so their time is not known; "
            "give another --workdir"
        )
    return max(1, round(other.reinforcement.steps * theirs / ours))


def _reinforce(job: Job, config: Config, recycled: Path) -> tuple[Path, float | None]:
    """Stage 2 and its seconds, added up over attempts; None where it was finished before anybody counted."""
    inputs = {"dataset": open_bundle(job.dataset).digest, "recycled": open_bundle(recycled).digest}
    key = stages.stage_key("reinforce", config, inputs)
    clock_file = _folder(job.workdir, "seconds") / f"{key}.json"
    if stages.is_finished(stages.place_of("reinforce", key, job.workdir)) and not clock_file.is_file():
        return Path(stages.reinforce(config, job.dataset, recycled, job.workdir)), None
    place, seconds = timed(clock_file, lambda: stages.reinforce(config, job.dataset, recycled, job.workdir))
    return Path(place), seconds


def timed(file: Path, work: Callable[[], Any]) -> tuple[Any, float]:
    """Do the work; its seconds, with those of attempts that were stopped. Kept in `file`, frozen once it is done.

    Of the processor's time where there is no GPU: a busy machine changes that little.
    """
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    known = json.loads(file.read_text()) if file.is_file() else {"seconds": 0.0, "done": False}
    start, done = clock(), False
    try:
        result = work()
        done = True
    finally:
        if not known["done"]:
            known = {"seconds": known["seconds"] + clock() - start, "done": done}
            write_json(file, known)
    return result, known["seconds"]


def _outcome(job: Job, arm: str, model: Path | None, **facts: Any) -> Outcome:
    images = score_model(job.config(), job.dataset, model, _folder(job.workdir, "scores"))
    return Outcome(job.set, job.row.name, arm, job.seed, images, model=str(model or ""), **facts)


def score_model(config: Config, dataset: Path, model: Path | None, cache: Path) -> dict[str, dict[str, float]]:
    """METRICS of a model file (None: the rainy input) on each pair, by name; scored once, kept in `cache`."""
    evaluated = config.evaluation.model_dump(include={"tile", "overlap", "mirror"})
    digest = open_bundle(model.parent).files[model.name] if model else ""
    file = cache / f"{digest_of({'model': digest, 'dataset': open_bundle(dataset).digest, **evaluated})}.json"
    if not file.is_file():
        evaluation = pairs_only(config, dataset, {"model": model})
        for case in evaluation.cases:
            score_case(evaluation, case)
        write_json(file, {row["name"]: {name: row[name] for name in METRICS} for row in evaluation.rows})
    return json.loads(file.read_text())


def pairs_only(config: Config, dataset: Path, models: dict[str, Path | None]) -> Evaluation:
    """An evaluation of model files (None: the rainy input) on the dataset's pairs, with no scorer."""
    data, device = Dataset.open(dataset), choose_device(config.training)
    loaded = {name: load_model(config, file, device) if file else None for name, file in models.items()}
    return Evaluation(config, data, loaded, [], [case for case in list_cases(data) if case.clean])


def _folder(workdir: Path, name: str) -> Path:
    folder = workdir / "tables" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
