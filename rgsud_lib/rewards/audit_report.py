"""The audit in words, as a table for the terminal, and as report.html: one page, offline, in the evaluation's style."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from rgsud_lib import __version__
from rgsud_lib.data.manifest import read_image
from rgsud_lib.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, _Frame, _svg
from rgsud_lib.evaluation.pictures import Picture, Strip
from rgsud_lib.evaluation.verdict import FEW_IMAGES, TIE_DB
from rgsud_lib.files import write_bytes

if TYPE_CHECKING:
    from rgsud_lib.rewards.audit import Audit

FEW_SOURCES = 4
CHANCE = 0.025  # a scorer that is first in no more of the resamples is out of the question
WORST = 3  # images shown of each scorer
DOTS = 200  # images drawn in a scatter, at most


def describe(summary: dict[str, Any]) -> dict[str, Any]:
    """The verdict {"title", "text"}, and all warnings: those of the reading, then ours."""
    return {"verdict": _verdict(summary), "warnings": [*summary["warnings"], *_warnings(summary)]}


def _verdict(summary: dict[str, Any]) -> dict[str, str]:
    first, base = summary["scorers"][0], summary["baselines"]
    name, agreement, gain = first["name"], first["outputs"]["spearman_psnr"], first["outputs"]["gain"]
    text = (
        f"Over {count_images(summary)}, {name} orders an image's outputs as PSNR does with a rank correlation of "
        f"{agreement['mean']:.2f} (95 % interval {agreement['low']:.2f} to {agreement['high']:.2f}; 1 is the same "
        f"order, 0 is chance). Picking by it gives {first['outputs']['picked_psnr_rgb']:.2f} dB: {gain['mean']:+.2f} "
        f"dB ({gain['low']:+.2f} to {gain['high']:+.2f}) against always taking {base['last_source']}, "
        f"{first['outputs']['over_blind']['mean']:+.2f} dB against a blind choice, "
        f"{first['outputs']['regret']['mean']:.2f} dB short of perfect picks. {_sureness(summary)}"
    )
    rivals = " or ".join(entry["name"] for entry in contenders(summary)[1:])
    if agreement["low"] <= 0:
        title = "None of these scorers can be trusted on these images"
        text += " Its agreement cannot be told from chance: use none of them, or audit more images."
    elif loses(first):
        title = f"{name} orders outputs best, but its picks lose {-gain['mean']:.1f} dB"
        text += " So it must not choose freely between outputs like these; the report's worst picks show what fools it."
    elif rivals:
        title = f"Use {name}, but {rivals} may be as good"
    elif len(summary["scorers"]) == 1:
        title = f"{name} ranks these images' outputs better than chance"
    else:
        title = f"Use {name} as the reward on these images"
    return {"title": title, "text": text}


def count_images(summary: dict[str, Any]) -> str:
    """ "50 images", or "50 images of 41 scenes" where some share a clean image."""
    images, scenes = summary["images"], summary["scenes"]
    return f"{images} images" + (f" of {scenes} scenes" if scenes < images else "")


def _sureness(summary: dict[str, Any]) -> str:
    first, *others = summary["scorers"]
    if not others:
        return "No other scorer was audited."
    shares = "".join(f", {e['name']} in {100 * e['first_share']:.0f} %" for e in contenders(summary)[1:])
    sure = "" if shares else ": other images like these would hardly change that"
    return f"It comes out first in {100 * first['first_share']:.0f} % of resamples{shares}{sure}."


def loses(entry: dict[str, Any]) -> bool:
    """Whether picking by the scorer is surely worse than always taking the last source, by more than a tie."""
    gain = entry["outputs"]["gain"]
    return gain["mean"] < -TIE_DB and gain["high"] < 0


def contenders(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The first scorer, and the others that these images do not rule out as the best."""
    first, *others = summary["scorers"]
    return [first, *(entry for entry in others if entry["first_share"] > CHANCE)]


def _warnings(summary: dict[str, Any]) -> list[str]:
    first, base, found = summary["scorers"][0], summary["baselines"], []
    if summary["scenes"] < FEW_IMAGES:
        found.append(f"Only {count_images(summary)}: neither the means nor their intervals say much.")
    if (count := len(summary["sources"]) - 1) < FEW_SOURCES:
        found.append(f"Only {count} sources: a rank correlation over so few outputs is coarse; add checkpoints.")
    if first["outputs"]["gain"]["mean"] <= 0 and not loses(first):
        found.append(f"Picking by {first['name']} is no better than always taking the last source.")
    lost = base["best_source_psnr_rgb"] - first["outputs"]["picked_psnr_rgb"]
    if lost > TIE_DB and base["best_source"] != base["last_source"]:
        found.append(f"Always taking {base['best_source']} would give {lost:.2f} dB more than picking by it.")
    safest = min(summary["scorers"], key=lambda entry: entry["outputs"]["regret"]["mean"])
    if safest is not first:
        found.append(f"{safest['name']} has the smallest regret: {safest['outputs']['regret']['mean']:.2f} dB.")
    by_ssim = max(summary["scorers"], key=lambda entry: entry["outputs"]["spearman_ssim"]["mean"])
    if by_ssim is not first:
        found.append(f"By SSIM instead of PSNR, {by_ssim['name']} would be first.")
    for entry in summary["scorers"]:
        if wrongly := entry["with_input"]["picks_input_wrongly"]:
            many = f"{wrongly} of {summary['images']} images"
            found.append(
                f"{entry['name']} likes doing nothing: it prefers the rainy input to a better output on {many}."
            )
        if constant := entry["outputs"]["constant_images"]:
            found.append(
                f"{entry['name']} gives all outputs one score on {constant} images (counted as correlation 0)."
            )
    return found


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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("rgsud_lib.rewards", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    house = files("rgsud_lib.evaluation").joinpath("report.html").read_text()
    page = environment.get_template("audit_report.html").render(
        summary=summary,
        count=count_images(summary),
        style=_between(house, "<style>", "</style>"),
        script=_between(house, "<script>", "</script>"),
        intervals=[interval_mark(entry) for entry in summary["scorers"]],
        contenders=[entry["name"] for entry in contenders(summary)],
        charts=[rank_chart(audit, entry) for entry in summary["scorers"]],
        picks=_picks(audit, summary),
        strips=[(entry["name"], worst_picks(audit, entry["name"])) for entry in summary["scorers"]],
        images=_image_table(audit, summary),
        version=__version__,
    )
    write_bytes(folder / "report.html", page.encode())


def interval_mark(entry: dict[str, Any]) -> Markup:
    """A small axis from -1 to 1: rank correlation with its interval, and (hollow) with the input as a candidate."""
    agreement, whole = entry["outputs"]["spearman_psnr"], entry["with_input"]["spearman_psnr"]
    low, mean, high, hollow = (80 + 74 * v for v in (*(agreement[k] for k in ("low", "mean", "high")), whole["mean"]))
    caption = f"{entry['name']}: {agreement['mean']:.2f}, 95 % {agreement['low']:.2f} to {agreement['high']:.2f}"
    return Markup(
        f'<svg class="interval" viewBox="0 0 160 20" width="160" height="20" role="img" aria-label="{escape(caption)}">'
        '<line class="grid" x1="6" x2="154" y1="10" y2="10"/><line class="axis" x1="80" x2="80" y1="3" y2="17"/>'
        f'<line class="line s0" x1="{low:.1f}" x2="{max(high, low + 1):.1f}" y1="10" y2="10"/>'
        f'<circle class="hollow" cx="{hollow:.1f}" cy="10" r="4"/>'
        f'<circle class="dot s0" cx="{mean:.1f}" cy="10" r="4"/>'
        "</svg>"
    )


def rank_chart(audit: Audit, entry: dict[str, Any]) -> Markup:
    """PSNR against the image's mean over its outputs, by the scorer's rank (1: its pick); a dot an output."""
    psnr, score = audit.scores["psnr_rgb"][:, :-1], audit.scores[entry["name"]][:, :-1]
    order = np.argsort(-score, axis=1, kind="stable")
    gains = np.take_along_axis(psnr - psnr.mean(1, keepdims=True), order, 1)
    ranks = np.arange(1, gains.shape[1] + 1)
    rows = np.unique(np.linspace(0, len(gains) - 1, min(len(gains), DOTS)).round().astype(int))
    frame = _Frame(0.5, gains.shape[1] + 0.5, gains[rows].min(), gains[rows].max())
    parts = [frame.grid(steps=False)]
    parts += [
        f'<text class="tick" x="{frame.x(rank):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{rank}</text>'
        for rank in ranks[:: max(1, len(ranks) // 12)]
    ]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{frame.y(0):.1f}" y2="{frame.y(0):.1f}"/>')
    for place, row in enumerate(rows):
        shift = 0.5 * (place / max(1, len(rows) - 1) - 0.5)  # beside each other, always at the same place
        for rank, candidate in zip(ranks, order[row], strict=True):
            title = f"{audit.pairs[row].name}, {audit.candidates[candidate]}: {gains[row, rank - 1]:+.2f} dB"
            parts.append(
                f'<circle class="cloud" cx="{frame.x(rank + shift):.1f}" cy="{frame.y(gains[row, rank - 1]):.1f}" '
                f'r="2"><title>{escape(title)}</title></circle>'
            )
    path = " ".join(f"{frame.x(rank):.1f},{frame.y(gains[:, rank - 1].mean()):.1f}" for rank in ranks)
    parts.append(f'<polyline class="line s1" points="{path}"/>')
    agreement = entry["outputs"]["spearman_psnr"]["mean"]
    return _svg(f"{entry['name']}, rank correlation {agreement:.2f}", parts, [])


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


def _between(page: str, start: str, end: str) -> Markup:
    """The house style's CSS and script have one home, the evaluation's page."""
    return Markup(page[page.index(start) + len(start) : page.index(end)])
