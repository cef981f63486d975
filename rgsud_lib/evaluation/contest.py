"""Champion and challenger on the same images with the same code: what the gate decides on.

The images are the dataset's pairs whose rainy scene was not trained on, the held-back rainy images, and the
held-back clean images, of which a derainer should change nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rgsud_lib.config import Config
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import BundleError
from rgsud_lib.evaluation.evaluate import Case, Evaluation, add_scorers, list_cases, load_model, score_case
from rgsud_lib.evaluation.gate import CLEAN, PAIRS, RAINY, Contest, Scores
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.inference import derain, derain_image
from rgsud_lib.rewards.cache import ScoreCache
from rgsud_lib.training.runtime import choose_device

PROBES = 3  # images on which a model must prove itself sound, and is timed
PROBE_SIDE = 256  # pixels of them that are looked at
ROUNDS = 3  # of timing, models taking turns; the quickest counts, since others' work only slows down
FLAT = 1 / 255  # a standard deviation below this is a constant picture


def hold_contest(
    config: Config, data: Dataset, models: Mapping[str, Path], cache: ScoreCache
) -> tuple[Contest, Evaluation]:
    """Score the model files "challenger" and, where there is one, "champion"; the evaluation can show the pictures."""
    device = choose_device(config.training)
    evaluation = Evaluation(config, data, {"input": None}, [], _cases(data))
    faults: dict[str, str] = {}
    for name, file in models.items():
        try:
            evaluation.models[name] = model = load_model(config, file, device)
            faults[name] = _fault(model, evaluation)
        except BundleError as error:
            faults[name] = f"cannot be loaded: {error}"
    if not any(faults.values()):
        add_scorers(evaluation, dict.fromkeys((*config.gate_judges, config.reward.scorer)), cache, device)
        judged_by_nobody = replace(evaluation, scorers=[])
        for case in evaluation.cases:
            score_case(judged_by_nobody if case.group == CLEAN else evaluation, case)
    timed = (config.gate.slowdown or config.gate.slowest) and not any(faults.values())
    seconds = _seconds_per_megapixel(evaluation) if timed else {}
    scores = {name: Scores(_values(evaluation, name), seconds.get(name, 0.0), faults.get(name, "")) for name in models}
    directions = {scorer.name: scorer.higher_is_better for scorer in evaluation.scorers}
    judges = {name: directions[name] for name in config.gate_judges if name in directions}
    reward = {name: higher for name, higher in directions.items() if name not in judges}
    do_nothing = Scores(_values(evaluation, "input"))
    return Contest(scores["challenger"], scores.get("champion"), do_nothing, judges, reward), evaluation


def _cases(data: Dataset) -> list[Case]:
    clean = [Case(CLEAN, record.id, record.name, record.id) for record in data.select("clean", "validation")]
    return [case for case in list_cases(data) if not case.transductive] + clean


def _fault(model: nn.Module, evaluation: Evaluation) -> str:
    """What is wrong with a model's raw outputs, which 8-bit pictures would hide; nothing if they look sound."""
    device = next(model.parameters()).device
    for case in evaluation.cases[:PROBES]:
        rainy = to_tensor(evaluation.data.image(case.rainy)[:PROBE_SIDE, :PROBE_SIDE])
        with torch.no_grad():
            output = derain(model, rainy.to(device), PROBE_SIDE, 0)
        if not torch.isfinite(output).all():
            return f"makes values that are not finite of {case.name}"
        if output.std() < FLAT <= rainy.std():
            return f"makes a constant picture of {case.name}"
    return ""


def _values(evaluation: Evaluation, model: str) -> dict[str, dict[str, float]]:
    """{"pairs/psnr_rgb": {image: value}}; the judges see the rainy side of the pairs as held-back rain too."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    scorers = {scorer.name for scorer in evaluation.scorers}
    for row in evaluation.rows:
        if row["model"] != model:
            continue
        for name in scorers & row.keys():
            values[f"{RAINY}/{name}"][row["id"]] = row[name]
        for name in METRICS.keys() & row.keys():
            values[f"{PAIRS if row['group'] == PAIRS else CLEAN}/{name}"][row["id"]] = row[name]
    return dict(values)


def _seconds_per_megapixel(evaluation: Evaluation) -> dict[str, float]:
    images = [evaluation.data.image(case.rainy) for case in evaluation.cases[:PROBES]]
    tile, overlap = evaluation.config.evaluation.tile, evaluation.config.evaluation.overlap
    models = {name: model for name, model in evaluation.models.items() if model is not None}
    quickest = dict.fromkeys(models, float("inf"))
    for _ in range(ROUNDS):
        for name, model in models.items():
            start = time.perf_counter()
            for image in images:
                derain_image(model, image, tile, overlap)
            quickest[name] = min(quickest[name], time.perf_counter() - start)
    megapixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
    return {name: seconds / megapixels for name, seconds in quickest.items()} if images else {}
