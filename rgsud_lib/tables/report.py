"""A table as Markdown for a terminal and for documentation, and as a page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rgsud_lib.config import Config
from rgsud_lib.evaluation.page import render_page
from rgsud_lib.evaluation.pictures import Picture, Strip, chosen_ranks
from rgsud_lib.evaluation.verdict import label
from rgsud_lib.files import write_bytes
from rgsud_lib.tables.arms import INPUT, Outcome, pairs_only
from rgsud_lib.tables.definitions import Table
from rgsud_lib.tables.results import DECIDING, Comparison, Line

SHOWN = 3  # pairs in the page, by the rank of what the row's first arm gains over doing nothing


def markdown(lines: Sequence[Line], compared: Sequence[Comparison]) -> str:
    """Both tables; PSNR RGB has the sample standard deviation over the seeds."""
    sections = [_grid(HEADINGS, [cells(line) for line in lines])]
    if compared:
        sections.append(_grid(COMPARED, [comparison_cells(each) for each in compared]))
    return "\n\n".join(sections) + "\n"


HEADINGS = (
    "set", "row", "arm", "PSNR RGB, dB", "each seed", "SSIM RGB", "PSNR Y, dB", "SSIM Y", "steps", "seconds", "paper",
)  # fmt: skip
COMPARED = ("set", "better?", "than", "gain, dB PSNR RGB", "95 % over images", "seeds won")


def cells(line: Line) -> tuple[str, ...]:
    """A line's text under HEADINGS."""
    set_, row, arm = line.place
    psnr = f"{line.means['psnr_rgb']:.2f}" + ("" if line.spread is None else f" ± {line.spread:.2f}")
    return (
        set_, row, arm, psnr, " / ".join(f"{value:.2f}" for value in line.seeds), f"{line.means['ssim_rgb']:.4f}",
        f"{line.means['psnr_y']:.2f}", f"{line.means['ssim_y']:.4f}", str(line.steps or ""),
        f"{line.seconds:.0f}" if line.seconds else "", line.published,
    )  # fmt: skip


def comparison_cells(compared: Comparison) -> tuple[str, ...]:
    """A comparison's text under COMPARED."""
    set_, row, arm = compared.first
    gain = compared.gain
    return (
        set_, f"{row}, {arm}", f"{compared.second[1]}, {compared.second[2]}", f"{gain.gain:+.3f}",
        f"{gain.low:+.3f} to {gain.high:+.3f}", f"{compared.won} of {compared.seeds}",
    )  # fmt: skip


def write_page(
    path: Path,
    table: Table,
    lines: Sequence[Line],
    compared: Sequence[Comparison],
    strips: Sequence[Strip],
    notes: Sequence[str],
    facts: dict[str, Any],
) -> None:
    """Write the table's page: one file, offline."""
    page = render_page(
        "rgsud_lib.tables",
        "table.html",
        title=table.title,
        headings=HEADINGS,
        lines=[cells(line) for line in lines],
        compared_headings=COMPARED,
        compared=[comparison_cells(each) for each in compared],
        strips=strips,
        notes=notes,
        facts=facts,
        seeds=max(len(line.seeds) for line in lines),
    )
    write_bytes(path, page.encode())


def picture_strips(config: Config, dataset: Path, outcomes: Sequence[Outcome]) -> list[Strip]:
    """A row's arms of one seed side by side on SHOWN pairs: largest, median and smallest gain of its first arm."""
    by_arm = {outcome.arm: outcome for outcome in outcomes}
    arms = [arm for arm, outcome in by_arm.items() if outcome.steps]
    evaluation = pairs_only(config, dataset, {arm: Path(by_arm[arm].model) for arm in arms} | {INPUT: None})
    gains = {
        name: values[DECIDING] - by_arm[INPUT].images[name][DECIDING] for name, values in by_arm[arms[0]].images.items()
    }
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)
    cases = {case.name: case for case in evaluation.cases}
    strips = []
    for position, rank in chosen_ranks(len(ranked), SHOWN):
        case = cases[ranked[position]]
        pictures = [_picture(arm, by_arm[arm], case.name, evaluation.output(case, arm)) for arm in (INPUT, *arms)]
        clean = Picture("clean", evaluation.data.image(str(case.clean)))
        place = f"{by_arm[arms[0]].set}, {by_arm[arms[0]].row}"
        strips.append(Strip(case.name, rank, place, [*pictures, clean]))
    return strips


def _picture(arm: str, outcome: Outcome, name: str, image: np.ndarray) -> Picture:
    return Picture(f"{arm}, {label(DECIDING)} {outcome.images[name][DECIDING]:.2f} dB", image)


def _grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruled = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    return "\n".join([*ruled, *(f"| {' | '.join(row)} |" for row in rows)])
