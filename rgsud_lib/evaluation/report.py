"""report.html: one page, offline, that shows what the model does to images before it shows any number.

Everything in it (names, settings) is escaped by the template; pictures are data URIs, charts are SVG.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgsud_lib import __version__
from rgsud_lib.bundle import open_bundle
from rgsud_lib.evaluation.charts import bar_chart, line_chart
from rgsud_lib.evaluation.page import render_page
from rgsud_lib.evaluation.pictures import (
    contact_sheet,
    doubtful_rewards,
    evaluation_strips,
    ranking_metric,
    read_pool,
    reward_strips,
)
from rgsud_lib.evaluation.verdict import (
    GROUPS,
    best_model,
    decimals,
    headline,
    image_gains,
    label,
    shown_metrics,
    transductive_note,
)
from rgsud_lib.files import write_bytes

if TYPE_CHECKING:
    from rgsud_lib.evaluation.evaluate import Evaluation

GROUP_TITLES = {"pairs": "Pairs", "held_back_rainy": "Held-back rainy images"}
CURVES = (
    ("Validation PSNR RGB in dB (held-back clean images, drawn rain)", ("validation/psnr_rgb",)),
    ("Reward pool: mean score", ("pool/score_mean",)),
    ("Reward pool: share of offers accepted", ("pool/acceptance_rate",)),
    ("Deraining loss", ("loss/derain",)),
    ("Adversarial game", ("loss/adversarial", "loss/discriminator")),
    ("Self-reinforced loss", ("loss/self_reinforced",)),
)


def write_report(
    evaluation: Evaluation, summary: dict[str, Any], recycled: Path, reinforced: Path, folder: Path
) -> None:
    """Write report.html and strip.png (before, derained, clean of three images) into `folder`."""
    pool = read_pool(Path(reinforced))
    strips = evaluation_strips(evaluation, summary, pool, Path(reinforced))
    page = render_page(
        "rgsud_lib.evaluation",
        summary=summary,
        headline=headline(summary),
        transductive=transductive_note(summary),
        strips=strips,
        rewards=reward_strips(evaluation, pool, Path(reinforced)),
        doubtful=doubtful_rewards(evaluation, pool, Path(reinforced)),
        tables=[_table(summary, group) for group in GROUPS if summary[group]],
        gains=_gain_chart(summary, evaluation.rows),
        images=[_image_table(summary, evaluation.rows, group) for group in GROUPS if summary[group]],
        curves=training_curves(Path(recycled), Path(reinforced)),
        provenance=_provenance(evaluation, Path(recycled), Path(reinforced), folder.name),
        config=json.dumps(evaluation.config.model_dump(mode="json"), indent=2),
    )
    write_bytes(folder / "report.html", page.encode())
    shown = [strip for strip in strips if not strip.rank.startswith("rank ")]
    if shown:
        captions = ("before", "derained", "clean") if summary["pairs"] else ("before", "derained")
        write_bytes(folder / "strip.png", contact_sheet(shown, captions))


def summary_table(summary: dict[str, Any]) -> str:
    """metrics.json as plain-text tables for a terminal: models by metrics, the best of each column marked `*`."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), width=100, highlight=False, color_system=None)
    for table in (_table(summary, group) for group in GROUPS if summary[group]):
        note = f", {table['note']}" if table["note"] else ""
        drawn = Table(title=f"{table['title']} ({table['count']}){note}", title_justify="left", title_style="bold")
        drawn.add_column("")
        for column in table["columns"]:
            drawn.add_column(f"{column['label']} {'↑' if column['higher'] else '↓'}", justify="right")
        for row in table["rows"]:
            drawn.add_row(row["label"], *(f"{cell['text']}{'*' if cell['best'] else ' '}" for cell in row["cells"]))
        console.print(drawn)
    for warning in summary["warnings"]:
        console.print(f"! {warning}", markup=False)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def training_curves(recycled: Path, reinforced: Path) -> list[Any]:
    """Charts of both stages' log.jsonl, stage 2 behind stage 1 on one axis of steps."""
    first, second = _read_log(recycled), _read_log(reinforced)
    offset = max((row["step"] for row in first), default=0)
    rows = first + [row | {"step": row["step"] + offset} for row in second]
    marks, phase = [], ""
    for row in rows:
        if row.get("phase", "") != phase:
            phase = row["phase"]
            marks.append((row["step"], phase.replace("_", " ")))
    charts = []
    for title, names in CURVES:
        series = [
            (name.split("/")[-1].replace("_", " "), [(row["step"], row[name]) for row in rows if name in row])
            for name in names
        ]
        charts.append(line_chart(title, series, marks[1:]))
    return [chart for chart in charts if chart]


def _read_log(folder: Path) -> list[dict[str, Any]]:
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _table(summary: dict[str, Any], group: str) -> dict[str, Any]:
    """Models by metrics, ready to print: columns, rows of cells, the best cell of each column marked."""
    mean = summary[group]["mean"]
    names = shown_metrics(summary, group)
    best = {name: best_model(summary, group, name) for name in names}
    columns = [
        {
            "label": label(name),
            "higher": summary["higher_is_better"][name],
            "role": {summary["scorer"]: "was the reward", summary["judge"]: "judge"}.get(name, ""),
        }
        for name in names
    ]
    rows = [
        {
            "label": label(model),
            "cells": [
                {"text": f"{mean[model][name]:.{decimals(name)}f}", "best": best[name] == model}
                for name in names
                if name in mean[model]
            ],
        }
        for model in summary["models"]
    ]
    note = transductive_note(summary) if group == "pairs" else ""
    return {
        "title": GROUP_TITLES[group],
        "count": summary[group]["count"],
        "columns": columns,
        "rows": rows,
        "note": note,
    }


def _image_table(summary: dict[str, Any], rows: list[dict[str, Any]], group: str) -> dict[str, Any]:
    """One line an image: the ranking metric under each model and its gain, other metrics before and after."""
    members = [row for row in rows if row["group"] == group]
    models, ranking = summary["models"], ranking_metric(summary, rows, group)
    shown = [(ranking, model) for model in models] if ranking else []
    shown += [(name, model) for name in ("ssim_rgb", summary["judge"]) for model in (models[0], models[-1])]
    shown += [(summary["scorer"], models[-1])]
    present = {name for row in members for name in row}
    shown = list(dict.fromkeys(column for column in shown if column[0] in present))
    gains = image_gains(summary, rows, group, ranking) if ranking else {}
    by_image: dict[str, dict[str, dict[str, Any]]] = {}
    for row in members:
        by_image.setdefault(row["name"], {})[row["model"]] = row
    lines = [
        {
            "name": name,
            "seen": values["input"]["transductive"],
            "cells": [
                _number(gains.get(name), 2, "+"),
                *(_number(values[model].get(metric), decimals(metric)) for metric, model in shown),
            ],
        }
        for name, values in by_image.items()
    ]
    columns = ["image", "gain", *(f"{label(metric)} {label(model)}" for metric, model in shown)]
    return {"title": GROUP_TITLES[group], "columns": columns, "lines": lines}


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{digits}f}"


def _gain_chart(summary: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    group = "pairs" if summary["pairs"] else "held_back_rainy"
    ranking = ranking_metric(summary, rows, group)
    if ranking is None:
        return ""
    gains = sorted(image_gains(summary, rows, group, ranking).items(), key=lambda item: -item[1])
    unit = "dB" if ranking.startswith("psnr") else label(ranking)
    return bar_chart(f"Gain of every image over its rainy input, {label(ranking)}, largest first", gains, unit)


def _provenance(evaluation: Evaluation, recycled: Path, reinforced: Path, name: str) -> list[tuple[str, str]]:
    """No seconds: equal work makes an equal report."""
    stages = [open_bundle(recycled, "recycled"), open_bundle(reinforced, "reinforced")]
    crops, megapixels = (sum(stage.facts.get(many, 0) for stage in stages) for many in ("images", "megapixels"))
    manifest = evaluation.data.manifest
    counts = [f"{len(manifest.select(role, 'train'))} {role}" for role in ("rainy", "clean")]
    held_back = [f"{len(manifest.select(role, 'validation'))} {role}" for role in ("rainy", "clean")]
    facts = [
        ("code version", __version__),
        ("preset", evaluation.config.preset),
        ("configuration digest", evaluation.config.digest()),
        ("trained on", " and ".join(counts) + " images"),
        ("held back", " and ".join(held_back) + " images"),
        ("dataset digest", evaluation.data.digest),
        ("stage 1 digest", stages[0].digest),
        ("stage 2 digest", stages[1].digest),
        ("cost", f"{crops:,} training crops, {megapixels:,.1f} megapixels; seconds and money: rgsud compare {name}"),
    ]
    return facts + [(f"scorer {scorer.name}", f"version {scorer.version}") for scorer in evaluation.scorers]
