"""Runs whose scores are known: bundles as the stages leave them, with real images and untrained models."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.config import load_config
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.evaluation.verdict import summarise
from rgsud_lib.files import link_tree, write_json
from rgsud_lib.stages import STAGES

MODELS = ("input", "recycled", "reinforced")
Make = Callable[..., Path]


@pytest.fixture
def make_run(mini_run, tmp_path: Path) -> Make:
    """`make_run("a", psnr=30.0, scorer="critic", settings=[...])`: the evaluation of a run in the one workdir."""

    def make(
        name: str, psnr: float, scorer: str = "rain_layer", settings: tuple[str, ...] = (), paired: bool = True,
        cost: dict[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        judge = "piqe" if scorer == "niqe" else "niqe"
        config = load_config("demo", [f"reward.scorer={scorer}", f"evaluation.judge={judge}", *settings])
        stages = tmp_path / "work" / "stages"
        stages.mkdir(parents=True, exist_ok=True)
        line = {"device": "NVIDIA H100", "gpus": 1, "cpus": 4, "pool": "", "seconds": 100.0, "lost": 0.0, "attempts": 1}

        def sealed(stage: str, folder: Path, inputs: dict[str, str], facts: dict[str, Any]) -> str:
            kind, sections = STAGES[stage]
            about = {"settings": config.document(*sections), "cost": [line | (cost or {})]}
            return seal(folder, kind, config.digest(*sections), inputs, facts, **about).digest

        source = mini_run.dataset if paired else mini_run.unpaired_dataset
        dataset = stages / f"prepare-{source.name}"
        if not dataset.exists():
            link_tree(source, dataset)
            (dataset / "bundle.json").unlink()
            sealed("prepare", dataset, {"sources": "s"}, {"pairs": 3, "rainy_validation": 1})
        made_from = {"dataset": open_bundle(dataset).digest}
        for stage, kind in (("recycle", "recycled"), ("reinforce", "reinforced")):
            folder = stages / f"{stage}-{name}"
            link_tree(getattr(mini_run, kind), folder)
            (folder / "bundle.json").unlink()
            (folder / "run.txt").write_text(name)
            made_from[kind] = sealed(stage, folder, dict(made_from), {"images": 50, "megapixels": 0.2})
        evaluation = stages / f"evaluate-{name}"
        evaluation.mkdir()
        write_scores(evaluation, Dataset.open(dataset), psnr, judge, scorer)
        sealed("evaluate", evaluation, made_from, {"images": 4, "megapixels": 0.05})
        return evaluation

    return make


def write_scores(folder: Path, data: Dataset, psnr: float, judge: str, scorer: str) -> None:
    """PSNR of `psnr` less the image's number, and a wobble of its own; all scores have a value."""
    rows = []
    for number, pair in enumerate(data.manifest.pairs):
        for model in MODELS:
            value = (psnr + 0.01 * number * psnr if model != "input" else 20.0) - number
            row = {"group": "pairs", "id": pair.rainy, "name": pair.name, "transductive": False, "model": model}
            scores = {judge: 100 - value, scorer: value}
            rows.append(row | {"psnr_rgb": value, "ssim_rgb": 0.9, "psnr_y": value, "ssim_y": 0.9} | scores)
    for record in data.select("rainy", "validation"):
        row = {"group": "held_back_rainy", "id": record.id, "name": record.name, "transductive": False}
        rows += [row | {"model": model, judge: 100 - psnr, scorer: psnr} for model in MODELS]
    directions = {judge: False, scorer: scorer not in ("niqe", "piqe")}
    write_json(folder / "metrics.json", summarise(rows, MODELS, directions, judge, scorer)
               if data.manifest.pairs else _unpaired(judge, scorer, directions))  # fmt: skip
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(folder / "per_image.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _unpaired(judge: str, scorer: str, directions: dict[str, bool]) -> dict[str, Any]:
    return {
        "models": list(MODELS), "judge": judge, "scorer": scorer, "pairs": None, "held_back_rainy": None,
        "higher_is_better": directions, "warnings": [],
    }  # fmt: skip
