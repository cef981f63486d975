"""The pictures of the report: strips of before, derained, reward and clean, chosen by rank and not by taste."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rgsud_lib.data.images import to_tensor
from rgsud_lib.errors import DataError
from rgsud_lib.evaluation.verdict import image_gains, label

if TYPE_CHECKING:
    from rgsud_lib.evaluation.evaluate import Evaluation

LARGEST = 1000  # pixels of the longer side in the report; larger pictures are scaled down
CELL, LABEL, GAP = 320, 26, 6  # contact sheet, pixels
JUDGED = 200  # pooled rewards that the judge looks at


@dataclass(frozen=True)
class Picture:
    caption: str
    image: np.ndarray

    @property
    def uri(self) -> str:
        """The picture as a data URI: JPEG without colour subsampling, which would blur thin streaks."""
        picture = Image.fromarray(self.image)
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=92, subsampling=0)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Strip:
    """One image's pictures, side by side; `rank` says how it was chosen."""

    name: str
    rank: str
    note: str
    pictures: list[Picture]


def evaluation_strips(
    evaluation: Evaluation, summary: dict[str, Any], pool: dict[str, Any], folder: Path
) -> list[Strip]:
    """Strips at even ranks of the gain (best, ..., median, ..., worst) among the pairs, or the held-back images."""
    group = "pairs" if summary["pairs"] else "held_back_rainy"
    ranking = ranking_metric(summary, evaluation.rows, group)
    if ranking is None:
        return []
    gains = image_gains(summary, evaluation.rows, group, ranking)
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)
    cases = {case.name: case for case in evaluation.cases if case.group == group}
    strips = []
    for position, rank in chosen_ranks(len(ranked), evaluation.config.evaluation.strips):
        case = cases[ranked[position]]
        if rank == "smallest gain" and gains[case.name] < 0:
            rank = "largest loss"
        pictures = [
            Picture("before", evaluation.output(case, "input")),
            Picture("derained", evaluation.output(case, summary["models"][-1])),
        ]
        if case.rainy in pool:
            pictures.append(Picture("reward", _pooled(folder, pool[case.rainy])))
        if case.clean:
            pictures.append(Picture("clean", evaluation.data.image(case.clean)))
        strips.append(Strip(case.name, rank, _note(evaluation, summary, case.name, group, ranking), pictures))
    return strips


def reward_strips(evaluation: Evaluation, pool: dict[str, Any], folder: Path, count: int = 3) -> list[Strip]:
    """Rainy training images with their pooled rewards, by how much the pool's score grew."""
    names = {record.id: record.name for record in evaluation.data.select("rainy", "train")}
    growth = {image: entry["score"] - entry["first_score"] for image, entry in pool.items() if image in names}
    ranked = sorted(growth, key=growth.__getitem__, reverse=True)
    strips = []
    for position, rank in chosen_ranks(len(ranked), count):
        image, entry = ranked[position], pool[ranked[position]]
        scores = f"score {entry['first_score']:.3f} → {entry['score']:.3f}"
        note = f"{scores}, replaced {entry['accepted'] - 1}×, {_origin(entry)}"
        pictures = [Picture("before", evaluation.data.image(image)), Picture("reward", _pooled(folder, entry))]
        strips.append(Strip(names[image], rank.replace("gain", "growth"), note, pictures))
    return strips


def doubtful_rewards(evaluation: Evaluation, pool: dict[str, Any], folder: Path, count: int = 10) -> list[Strip]:
    """The rewards in which the judge sees least improvement over the rainy image, worst first.

    Of large pools at most 200 images are looked at, evenly spread.
    """
    judge = next((scorer for scorer in evaluation.scorers if scorer.name == evaluation.config.evaluation.judge), None)
    records = [record for record in evaluation.data.select("rainy", "train") if record.id in pool]
    if judge is None or not records:
        return []
    gains: dict[str, float] = {}
    for position in np.unique(np.linspace(0, len(records) - 1, min(len(records), JUDGED)).astype(int)):
        image = records[position].id
        rainy, reward = to_tensor(evaluation.data.image(image)), to_tensor(_pooled(folder, pool[image]))
        try:
            gains[image] = float(judge(reward, rainy) - judge(rainy, rainy))
        except DataError:  # too small for this judge
            continue
    names = {record.id: record.name for record in records}
    strips = []
    for rank, image in enumerate(sorted(gains, key=gains.__getitem__)[:count], 1):
        entry = pool[image]
        change = gains[image] if judge.higher_is_better else -gains[image]
        note = f"{label(judge.name)} {change:+.2f}, score {entry['score']:.3f}, {_origin(entry)}"
        pictures = [Picture("before", evaluation.data.image(image)), Picture("reward", _pooled(folder, entry))]
        strips.append(Strip(names[image], f"{rank} of {len(gains)} judged", note, pictures))
    return strips


def ranking_metric(summary: dict[str, Any], rows: Sequence[dict[str, Any]], group: str) -> str | None:
    """What the images are ranked by: PSNR where there are pairs, else the judge, else the reward."""
    names = ("psnr_rgb",) if group == "pairs" else (summary["judge"], summary["scorer"])
    return next((name for name in names if any(name in row and row["group"] == group for row in rows)), None)


def chosen_ranks(total: int, count: int) -> list[tuple[int, str]]:
    """At most `count` positions spread evenly over a ranking of `total`, first, median and last named so."""
    count = min(count, total)
    positions = [round(index * (total - 1) / max(1, count - 1)) for index in range(count)]
    names = {0: "largest gain", total - 1: "smallest gain"} if count > 1 else {0: "only image"}
    if count > 2:
        positions[count // 2] = (total - 1) // 2
        names[(total - 1) // 2] = "median gain"
    chosen = dict.fromkeys(positions)  # the median may be chosen already
    return [(position, names.get(position, f"rank {position + 1} of {total}")) for position in chosen]


def contact_sheet(strips: Sequence[Strip], captions: Sequence[str]) -> bytes:
    """A PNG of up to three strips (best, median, worst), a row each, with the pictures `captions` name."""
    rows = [[picture for picture in strip.pictures if picture.caption in captions] for strip in strips]
    thumbnails = [[_fit(picture.image) for picture in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in thumbnails]
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (CELL + GAP) + GAP, LABEL + sum(heights) + GAP * (len(rows) + 1)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for column, picture in enumerate(rows[0]):
        draw.text((GAP + column * (CELL + GAP) + CELL / 2, LABEL / 2 + 2), picture.caption, "#222", font, anchor="mm")
    top = LABEL + GAP
    for row, height in zip(thumbnails, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * (CELL + GAP) + (CELL - picture.width) // 2, top))
        top += height + GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_pool(folder: Path) -> dict[str, Any]:
    """The entries of a stage's reward pool by image id; none where the stage kept no pool."""
    index = folder / "pool" / "index.json"
    return json.loads(index.read_text())["entries"] if index.is_file() else {}


def _origin(entry: dict[str, Any]) -> str:
    when = f"step {entry['step']}" if entry["step"] > 0 else "stage 1"
    return f"{entry['source']} of {when}"


def _pooled(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    with Image.open(folder / "pool" / entry["file"], formats=("PNG",)) as picture:
        return np.array(picture.convert("RGB"))


def _fit(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    return picture


def _note(evaluation: Evaluation, summary: dict[str, Any], name: str, group: str, ranking: str) -> str:
    values = {row["model"]: row for row in evaluation.rows if row["group"] == group and row["name"] == name}
    before, after = values["input"], values[summary["models"][-1]]
    unit = " dB" if ranking.startswith("psnr") else ""
    note = f"{label(ranking)} {before[ranking]:.2f} → {after[ranking]:.2f}{unit}"
    return f"{note}, trained on" if before["transductive"] else note
