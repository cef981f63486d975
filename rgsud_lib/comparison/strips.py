"""What the runs make of the same images: their models are loaded again and derain the images on which they differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from rgsud_lib.comparison.compare import Comparison, Row
from rgsud_lib.comparison.runs import Run
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import RgsudError
from rgsud_lib.evaluation.pictures import Picture, Strip, chosen_ranks
from rgsud_lib.evaluation.verdict import decimals, label
from rgsud_lib.inference import Mirrored, derain_image, load_derainer
from rgsud_lib.storage.remote import pulled

logger = logging.getLogger("rgsud")


def comparison_strips(comparison: Comparison, count: int) -> list[Strip]:
    """At most `count` strips at even ranks of how far the runs are apart; none, with a note, where a bundle is gone."""
    row, runs = comparison.main, comparison.runs
    if row is None:
        return []
    try:
        data = Dataset.open(_folder(runs[0], "dataset"))
        models = [_model(run) for run in runs]
    except (RgsudError, KeyError) as error:
        comparison.notes.append(f"No pictures: {error}.")
        return []
    strips = []
    values = [run.values[row.group, run.model, row.metric] for run in runs]
    names = {image.id: image.name for image in data.manifest.images}
    clean = {pair.rainy: pair.clean for pair in data.manifest.pairs} if row.group == "pairs" else {}
    for image, rank in _chosen(values, count):
        logger.info("compare: pictures of %s", names[image])
        rainy = data.image(image)
        pictures = [Picture("before", rainy)]
        for run, model in zip(runs, models, strict=True):
            tile, overlap = (run.settings.get(f"evaluation.{name}", default) for name, default in
                             (("tile", 1024), ("overlap", 64)))  # fmt: skip
            pictures.append(Picture(run.letter, derain_image(model, rainy, tile, overlap)))
        if image in clean:
            pictures.append(Picture("clean", data.image(clean[image])))
        strips.append(Strip(names[image], rank, _note(row, runs, values, image), pictures))
    return strips


def _chosen(values: Sequence[dict[str, float]], count: int) -> list[tuple[str, str]]:
    images = sorted(set.intersection(*map(set, values)))
    spread = {image: max(own[image] for own in values) - min(own[image] for own in values) for image in images}
    if len(values) == 1:
        spread = values[0]
    ranked = sorted(images, key=spread.__getitem__, reverse=True)
    word = "difference" if len(values) > 1 else "value"
    return [(ranked[at], rank.replace("gain", word)) for at, rank in chosen_ranks(len(ranked), count)]


def _note(row: Row, runs: Sequence[Run], values: Sequence[dict[str, float]], image: str) -> str:
    digits = decimals(row.metric)
    return f"{label(row.metric)} " + ", ".join(
        f"{run.letter} {own[image]:.{digits}f}" for run, own in zip(runs, values, strict=True)
    )


def _model(run: Run) -> nn.Module:
    derainer = load_derainer(_folder(run, "reinforced"))
    return Mirrored(derainer) if run.settings.get("evaluation.mirror") else derainer


def _folder(run: Run, kind: str) -> Path:
    if kind not in run.made_from:
        raise RgsudError(f"the {kind} bundle of {run.letter} is not in its workdir any more")
    return pulled(run.made_from[kind].path)
