"""Every scorer's opinion of every candidate, beside what the clean image says (PSNR, SSIM)."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from tqdm import tqdm

from rgsud_lib.config import digest_of
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import read_image
from rgsud_lib.errors import DataError, TrainingError
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.rewards.audit.state import QUALITY, Audit
from rgsud_lib.rewards.cache import CachedScorer, ScoreCache


def score_pairs(audit: Audit, store: ScoreCache) -> None:
    """Fill `audit.scores`. Raises TrainingError for a scorer that gives NaN, or one value for all there is."""
    judges = [CachedScorer(Reference(name), store) for name in QUALITY]
    count = len(audit.candidates)
    for scorer in (*judges, *audit.scorers):
        audit.scores[scorer.name] = np.empty((len(audit.pairs), count))
    total = len(audit.pairs) * count * (len(judges) + len(audit.scorers))
    with tqdm(total=total, desc="score", unit="score", disable=None) as progress:
        for row, pair in enumerate(audit.pairs):
            rainy, clean = (to_tensor(read_image(audit.cache, id)) for id in (pair.rainy, pair.clean))
            for column in range(count):
                output = to_tensor(audit.output(pair, column))
                for scorer, other in [(judge, clean) for judge in judges] + [(s, rainy) for s in audit.scorers]:
                    audit.scores[scorer.name][row, column] = _score(audit, scorer, output, other, row, column)
                    progress.update()
    for scorer in audit.scorers:
        values = audit.scores[scorer.name]
        if (values == values[:, :1]).all():
            raise TrainingError(
                f"scorer {scorer.name!r} gives all {count} candidates of each image one score, such as "
                f"{values[0, 0]:g} for image {audit.pairs[0].name}; it cannot choose anything: leave it out"
            )


def _score(audit: Audit, scorer: CachedScorer, output: Tensor, other: Tensor, row: int, column: int) -> float:
    what = f"image {audit.pairs[row].name}, candidate {audit.candidates[column]}"
    try:
        score = scorer(output, other).item()
    except DataError as error:
        raise DataError(f"scorer {scorer.name!r} cannot score {what}: {error}") from None
    if not math.isfinite(score):
        raise TrainingError(f"scorer {scorer.name!r} gave {score} for {what}; expected a finite score: leave it out")
    return score


class Reference:
    """A full-reference metric as a scorer whose second argument is the clean image, so that it is cached like one."""

    higher_is_better = True

    def __init__(self, name: str) -> None:
        self.name, self.version = name, digest_of({"name": name, "revision": 1})

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor:
        return METRICS[self.name](output, rainy).float()
