"""compare.html: one file, offline, in the style of the reports."""

from __future__ import annotations

from typing import Any

from rgsud_lib.comparison.compare import Comparison
from rgsud_lib.comparison.strips import comparison_strips
from rgsud_lib.comparison.tables import cost_table, headline, metrics_table, settings_table
from rgsud_lib.evaluation.charts import bar_chart
from rgsud_lib.evaluation.page import render_page
from rgsud_lib.evaluation.verdict import label


def comparison_page(comparison: Comparison, strips: int) -> str:
    """The HTML; `strips`: how many images at most. Their pictures are made here, from the runs' models."""
    shown = comparison_strips(comparison, strips)
    return render_page(
        "rgsud_lib.comparison",
        "compare.html",
        headline=headline(comparison),
        manifest=comparison.runs[0].manifest,
        runs=comparison.runs,
        warnings=comparison.notes,
        settings=settings_table(comparison),
        metrics=metrics_table(comparison),
        charts=_gain_charts(comparison),
        strips=shown,
        cost=cost_table(comparison),
        currency=comparison.prices.currency if comparison.prices else "",
    )


def _gain_charts(comparison: Comparison) -> list[Any]:
    """Of each later run: every image's gain over the first, largest first."""
    row, first = comparison.main, comparison.runs[0]
    charts = []
    for run in comparison.runs[1:] if row else ():
        ours, theirs = (one.values[row.group, one.model, row.metric] for one in (run, first))
        sign = 1 if row.higher else -1
        gains = {image: sign * (ours[image] - theirs[image]) for image in ours.keys() & theirs.keys()}
        bars = sorted(gains.items(), key=lambda item: -item[1])
        unit = "dB" if row.metric.startswith("psnr") else label(row.metric)
        title = f"Gain of every image from {first.letter} to {run.letter}, {label(row.metric)}"
        charts.append(bar_chart(title, bars, unit))
    return charts
