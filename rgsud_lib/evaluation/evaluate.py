"""The evaluation stage: every model on the pairs and on the held-back rainy images, whole, as 8-bit pictures.

The models were trained to please the reward scorer, so a judge that never was the reward scores
beside it; the pairs' clean images are used here and nowhere else.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rgsud_lib.config import Config
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import DataError
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.evaluation.verdict import summarise
from rgsud_lib.fan_out import Shard
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.inference import Mirrored, derain_image, load_derainer
from rgsud_lib.rewards import Scorer, build_scorer
from rgsud_lib.rewards.cache import CachedScorer, ScoreCache
from rgsud_lib.training.runtime import choose_device

log = logging.getLogger("rgsud")
PART = "scores.json"
MODEL_FILES = {
    "warm_start": ("recycled", "warm_start.safetensors"),
    "recycled": ("recycled", "derainer.safetensors"),
    "reinforced": ("reinforced", "derainer.safetensors"),
}


@dataclass(frozen=True)
class Case:
    """One rainy input to evaluate; `clean` is the id of its target, None where there is none."""

    group: str  # "pairs" or "held_back_rainy"
    rainy: str
    name: str
    clean: str | None = None
    transductive: bool = False


@dataclass
class Evaluation:
    """What is evaluated, with what, and the scores so far: one row an image and model."""

    config: Config
    data: Dataset
    models: dict[str, nn.Module | None]
    scorers: list[Scorer]
    cases: list[Case]
    rows: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def output(self, case: Case, model: str) -> np.ndarray:
        """The model's output as it would be saved, uint8 H x W x 3; "input" hands back the rainy image."""
        rainy, derainer = self.data.image(case.rainy), self.models[model]
        if derainer is None:
            return rainy
        return derain_image(derainer, rainy, self.config.evaluation.tile, self.config.evaluation.overlap)


def evaluate_models(
    config: Config,
    dataset: Path,
    recycled: Path,
    reinforced: Path,
    folder: Path,
    parts: Sequence[Path | None] = (None,),
) -> dict[str, Any]:
    """Write metrics.json, per_image.csv, report.html and strip.png into `folder`; returns the bundle's facts.

    `parts` are folders that `score_part` filled, one a shard of the images, None for one that is scored here.
    Models: the rainy input itself (do nothing), the warm start where there was one, stage 1, stage 2.
    `facts["metrics"]` is flat: "pairs/reinforced/psnr_rgb", "held_back_rainy/input/niqe".
    """
    from rgsud_lib.evaluation.report import write_report

    with ScoreCache(folder.parent / "scores.sqlite") as cache:  # beside the folder: another judge costs only itself
        evaluation = prepare_evaluation(config, Dataset.open(dataset), recycled, reinforced, cache)
        for index, part in enumerate(parts):
            if part:
                _take(evaluation, part)
            else:
                _score(evaluation, Shard(index, len(parts)))
        directions = {scorer.name: scorer.higher_is_better for scorer in evaluation.scorers}
        judge, scorer = config.evaluation.judge, config.reward.scorer
        summary = summarise(evaluation.rows, list(evaluation.models), directions, judge, scorer, evaluation.warnings)
        write_json(folder / "metrics.json", summary)
        write_bytes(folder / "per_image.csv", _csv(evaluation.rows))
        write_report(evaluation, summary, recycled, reinforced, folder)
    outputs = len(evaluation.models) - 1  # of each case: the rainy input is nobody's
    sizes = {record.id: record.height * record.width for record in evaluation.data.manifest.images}
    return {
        "metrics": flat_metrics(summary), "warnings": summary["warnings"], "pairs": summary["pairs"],
        "images": outputs * len(evaluation.cases),
        "megapixels": outputs * sum(sizes[case.rainy] for case in evaluation.cases) / 1e6,
    }  # fmt: skip


def score_part(
    config: Config, dataset: Path, recycled: Path, reinforced: Path, shard: Shard, folder: Path
) -> dict[str, Any]:
    """Score one shard of the images into `folder`; returns how many there were."""
    with ScoreCache(folder.parent / "scores.sqlite") as cache:
        evaluation = prepare_evaluation(config, Dataset.open(dataset), recycled, reinforced, cache)
        _score(evaluation, shard)
    scores = {"rows": evaluation.rows, "warnings": evaluation.warnings}  # a row's order is that of the table's columns
    write_bytes(folder / PART, json.dumps(scores, indent=1).encode())
    return {"images": len(shard.of(evaluation.cases))}


def prepare_evaluation(
    config: Config, data: Dataset, recycled: Path, reinforced: Path, cache: ScoreCache
) -> Evaluation:
    """Load the models, fit the scorers on the clean training images, list the cases."""
    folders = {"recycled": Path(recycled), "reinforced": Path(reinforced)}
    device = choose_device(config.training)
    models: dict[str, nn.Module | None] = {"input": None}
    for name, (stage, file) in MODEL_FILES.items():
        if name != "warm_start" or (folders[stage] / file).is_file():
            models[name] = load_model(config, folders[stage] / file, device)
    evaluation = Evaluation(config, data, models, [], list_cases(data))
    if config.evaluation.mirror:
        evaluation.warnings.append(
            "Every output is the mean over the image and its mirror image (evaluation.mirror); "
            "the exported model does that with `rgsud derain --mirror`."
        )
    add_scorers(evaluation, (config.evaluation.judge, config.reward.scorer), cache, device)
    return evaluation


def load_model(config: Config, file: Path, device: str) -> nn.Module:
    """A derainer as it is evaluated: with its mirror image where the configuration says so."""
    derainer = load_derainer(file, device)
    return Mirrored(derainer) if config.evaluation.mirror else derainer


def add_scorers(evaluation: Evaluation, names: Iterable[str], cache: ScoreCache, device: str) -> None:
    """Fit the scorers on the clean training images; one that cannot be fitted is a warning."""
    config, data = evaluation.config, evaluation.data
    clean = data.images("clean", "train")
    for name in names:
        try:
            evaluation.scorers.append(CachedScorer(build_scorer(name, config, clean, data.critic, device), cache))
        except DataError as error:
            evaluation.warnings.append(f"No {name} scores: {error}")


def _score(evaluation: Evaluation, shard: Shard) -> None:
    cases = shard.of(evaluation.cases)
    for number, case in enumerate(cases, 1):
        score_case(evaluation, case)
        if number % 20 == 0 or number == len(cases):
            log.info("evaluate: image %d of %d", number, len(cases))


def _take(evaluation: Evaluation, part: Path) -> None:
    scores = json.loads((part / PART).read_bytes())
    evaluation.rows += scores["rows"]
    evaluation.warnings += [warning for warning in scores["warnings"] if warning not in evaluation.warnings]


def score_case(evaluation: Evaluation, case: Case) -> None:
    """Append one row a model: metrics against the clean image where there is one, scores without it always."""
    rainy = to_tensor(evaluation.data.image(case.rainy))
    clean = to_tensor(evaluation.data.image(case.clean)) if case.clean else None
    for model in evaluation.models:
        output = to_tensor(evaluation.output(case, model))
        row = {
            "group": case.group,
            "id": case.rainy,
            "name": case.name,
            "transductive": case.transductive,
            "model": model,
        }
        if clean is not None:
            row |= {name: metric(output, clean).item() for name, metric in METRICS.items()}
        for scorer in evaluation.scorers:
            try:
                score = scorer(output, rainy).item()
            except DataError as error:
                warning = f"Images without a {scorer.name} score: {error}"
                if warning not in evaluation.warnings:
                    evaluation.warnings.append(warning)
                continue
            row[scorer.name] = score if scorer.higher_is_better else -score  # its native direction, as published
        evaluation.rows.append(row)


def flat_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """`summary` (metrics.json) to {"pairs/reinforced/psnr_rgb": 32.6, ...}."""
    return {
        f"{group}/{model}/{name}": value
        for group in ("pairs", "held_back_rainy")
        if summary[group]
        for model, means in summary[group]["mean"].items()
        for name, value in means.items()
    }


def list_cases(data: Dataset) -> list[Case]:
    """The pairs, then the held-back rainy images."""
    seen = data.manifest.transductive()
    pairs = [Case("pairs", pair.rainy, pair.name, pair.clean, pair.rainy in seen) for pair in data.manifest.pairs]
    held_back = [Case("held_back_rainy", record.id, record.name) for record in data.select("rainy", "validation")]
    return pairs + held_back


def _csv(rows: list[dict[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
