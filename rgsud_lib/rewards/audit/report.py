"""The audit as a table for the terminal, and as report.html: one page, offline, in the evaluation's style."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rgsud_lib import __version__
from rgsud_lib.data.manifest import read_image
from rgsud_lib.evaluation.page import render_page
from rgsud_lib.evaluation.pictures import Picture, Strip
from rgsud_lib.files import write_bytes
from rgsud_lib.rewards.audit.charts import interval_mark, rank_chart
from rgsud_lib.rewards.audit.state import Audit
from rgsud_lib.rewards.audit.verdict import contenders, count_images

WORST = 3  # images shown of each scorer


def summary_table(summary: dict[str, Any]) -> str:
    """audit.json for a terminal: the verdict, a line a scorer, the warnings."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), width=100, highlight=False, color_system=None)
    title = f"Audit of rewards: {count_images(summary)}, {len(summary['sources']) - 1} sources"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("rank correlation with", overflow="fold")
    for column in ("PSNR ↑", "95 %", "SSIM ↑", "gain dB ↑", "regret ↓", "+input ↑", "s/image"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in summary["scorers"]:
        outputs, whole = entry["outputs"], entry["with_input"]
        agreement = outputs["spearman_psnr"]
        table.add_row(
            entry["name"], f"{agreement['mean']:.2f}", f"{agreement['low']:.2f} to {agreement['high']:.2f}",
            f"{outputs['spearman_ssim']['mean']:.2f}", f"{outputs['gain']['mean']:+.2f}",
            f"{outputs['regret']['mean']:.2f}", f"{whole['spearman_psnr']['mean']:.2f}",
            f"{entry['seconds_per_image']:.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(f"{summary['verdict']['title']}. {summary['verdict']['text']}", markup=False)
    for warning in summary["warnings"]:
        console.print(f"! {warning}", markup=False)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def write_report(audit: Audit, summary: dict[str, Any], folder: Path) -> None:
    """Write report.html into `folder`; everything in it is escaped, pictures are data URIs."""
    page = render_page(
        "rgsud_lib.rewards.audit",
        summary=summary,
        count=count_images(summary),
        intervals=[interval_mark(entry) for entry in summary["scorers"]],
        contenders=[entry["name"] for entry in contenders(summary)],
        charts=[rank_chart(audit, entry) for entry in summary["scorers"]],
        picks=_picks(audit, summary),
        strips=[(entry["name"], worst_picks(audit, entry["name"])) for entry in summary["scorers"]],
        images=_image_table(audit, summary),
        version=__version__,
    )
    write_bytes(folder / "report.html", page.encode())


def worst_picks(audit: Audit, scorer: str) -> list[Strip]:
    """The images on which the scorer's pick among the outputs loses most PSNR; none where every pick is the best."""
    psnr, score = audit.scores["psnr_rgb"][:, :-1], audit.scores[scorer][:, :-1]
    pick, best = score.argmax(1), psnr.argmax(1)
    regret = psnr.max(1) - np.take_along_axis(psnr, pick[:, None], 1)[:, 0]
    strips = []
    for row in np.argsort(-regret, kind="stable")[:WORST]:
        if regret[row] <= 0:
            break
        pair, names = audit.pairs[row], audit.candidates
        pictures = [Picture("rainy", read_image(audit.cache, pair.rainy))]
        for caption, chosen in (("pick", pick[row]), ("best", best[row])):
            pictures.append(Picture(f"{caption} {psnr[row, chosen]:.2f} dB", audit.output(pair, int(chosen))))
        pictures.append(Picture("clean", read_image(audit.cache, pair.clean)))
        note = f"picks {names[pick[row]]}, best is {names[best[row]]}"
        strips.append(Strip(pair.name, f"loses {regret[row]:.2f} dB", note, pictures))
    return strips


def _picks(audit: Audit, summary: dict[str, Any]) -> list[list[int]]:
    """How often each scorer (in the summary's order) picks each candidate, the input among them."""
    counts = [
        np.bincount(audit.scores[entry["name"]].argmax(1), minlength=len(audit.candidates)).tolist()
        for entry in summary["scorers"]
    ]
    return [list(column) for column in zip(*counts, strict=True)]


def _image_table(audit: Audit, summary: dict[str, Any]) -> dict[str, Sequence[Any]]:
    """A line an image: PSNR of input, last and best output, then of each scorer's pick."""
    psnr = audit.scores["psnr_rgb"]
    columns = [psnr[:, -1], psnr[:, -2], psnr[:, :-1].max(1)]
    for entry in summary["scorers"]:
        pick = audit.scores[entry["name"]][:, :-1].argmax(1)
        columns.append(np.take_along_axis(psnr, pick[:, None], 1)[:, 0])
    names = ["image", "input", "last source", "best output", *(f"pick of {e['name']}" for e in summary["scorers"])]
    return {
        "columns": names,
        "lines": list(zip([pair.name for pair in audit.pairs], np.stack(columns, 1), strict=True)),
    }
