"""A run as it is compared: its scores by image, the settings it was made with, the bundles it came from."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rgsud_lib.bundle import Bundle
from rgsud_lib.config import flatten
from rgsud_lib.cost.model import StageCost, model_cost
from rgsud_lib.errors import ComparisonError
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.lineage import Place, behind, newest_first, workdir_of
from rgsud_lib.storage.remote import open_anywhere, pulled

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MANIFEST = "manifest.json"
SETTINGS_FROM = ("dataset", "evaluation", "recycled", "reinforced")  # of a section that several have, the last counts
Values = dict[tuple[str, str, str], dict[str, float]]


@dataclass(frozen=True)
class Run:
    """`values[group, model, metric]` are by image; `made_from` are its own bundles by kind, as far as they are left."""

    letter: str
    bundle: Bundle
    summary: dict[str, Any]
    values: Values
    made_from: dict[str, Bundle]
    costs: list[StageCost]

    @property
    def name(self) -> str:
        """The folder's name, which the workdir and MLflow's tags have too."""
        return str(self.bundle.path).rpartition("/")[2]

    @property
    def model(self) -> str:
        """The model that the run was for: the last one."""
        return str(self.summary["models"][-1])

    @property
    def manifest(self) -> str:
        """What identifies the images that were scored: SHA-256 of the manifest, or the dataset's digest."""
        dataset = self.made_from.get("dataset")
        return dataset.files[MANIFEST] if dataset else self.bundle.inputs["dataset"]

    @property
    def settings(self) -> dict[str, Any]:
        """`{"training.steps": 1000, ...}`: all that the bundles say they were made with."""
        sections: dict[str, Any] = {}
        for kind in SETTINGS_FROM:
            if kind in self.made_from:
                sections |= self.made_from[kind].settings
        return flatten(sections)


def open_runs(places: list[Place]) -> list[Run]:
    """Raises ComparisonError: one twice, too many, or other images than the first; BundleError: no evaluation."""
    if len(places) > len(LETTERS):
        raise ComparisonError(f"{len(places)} runs are too many for one page; give at most {len(LETTERS)}")
    runs = [_open(place, letter) for place, letter in zip(places, LETTERS, strict=False)]
    for index, run in enumerate(runs):
        for other in runs[:index]:
            if other.bundle.path == run.bundle.path:
                raise ComparisonError(f"{run.name} is given twice ({other.letter} and {run.letter}); leave one out")
    for run in runs[1:]:
        _same_images(runs[0], run)
    return runs


def _open(place: Place, letter: str) -> Run:
    bundle = open_anywhere(place, "evaluation")
    folder = pulled(place)
    workdir = workdir_of(place)
    exports = [one for _, one in newest_first(workdir) if one.inputs.get("evaluation") == bundle.digest]
    bundles = [*exports[:1], *behind(bundle, workdir)]
    own: dict[str, Bundle] = {}
    for item in bundles:  # nearest first
        own.setdefault(item.kind, item)
    summary = json.loads((folder / "metrics.json").read_bytes())
    return Run(letter, bundle, summary, _values(folder / "per_image.csv"), own, model_cost(bundles))


def _values(table: Path) -> Values:
    known = {"group", "id", "name", "transductive", "model"}
    values: Values = defaultdict(dict)
    for row in csv.DictReader(io.StringIO(table.read_text())):
        for name in row.keys() - known:
            if row[name]:
                values[row["group"], row["model"], name][row["id"]] = float(row[name])
    return dict(values)


def _same_images(first: Run, other: Run) -> None:
    if other.manifest == first.manifest:
        return
    raise ComparisonError(
        f"{first.name} was scored on dataset {_digest(first)} and {other.name} on {_digest(other)}: their manifests "
        "differ, so their means are of different images and no pair of values belongs together. Score both models on "
        "one dataset: rgsud evaluate --dataset DIR --recycled DIR --reinforced DIR"
    )


def _digest(run: Run) -> str:
    counts = run.made_from["dataset"].facts if "dataset" in run.made_from else {}
    held = f" ({counts['pairs']} pairs, {counts['rainy_validation']} held-back images)" if counts else ""
    return f"{run.bundle.inputs['dataset']}{held}"


def scorers_of(run: Run) -> dict[str, Any]:
    """What the values of its no-reference scores depend on besides the images."""
    settings = run.bundle.settings
    return {"scorers": settings.get("scorers"), "dataset": run.bundle.inputs["dataset"]}


def needs_scorer(metric: str) -> bool:
    return metric not in METRICS
