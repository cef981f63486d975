"""From outcomes to a table's lines: means and spread over the seeds, and how sure each "better than" is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rgsud_lib.evaluation.bootstrap import Gain, paired_gain
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.tables.arms import Outcome
from rgsud_lib.tables.definitions import Table, published

CONFIDENCE = 0.95
DECIDING = "psnr_rgb"
Place = tuple[str, str, str]  # set, row, arm


@dataclass(frozen=True)
class Line:
    """An arm over all seeds. `means`: over seeds and images; `seeds`: PSNR RGB of each seed."""

    place: Place
    means: dict[str, float]
    seeds: list[float]
    steps: int
    seconds: float | None
    published: str

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of PSNR RGB over the seeds, in dB; None for a single one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """PSNR RGB of `first` against `second`, each image's the mean over seeds; `won`: seeds with a higher mean of first.

    The interval says how sure the gain is for other images of this kind, not for other seeds.
    """

    first: Place
    second: Place
    gain: Gain
    won: int
    seeds: int


def lines(table: str, outcomes: Sequence[Outcome]) -> list[Line]:
    """One line an arm, in the order of the outcomes."""
    return [_line(table, place, group) for place, group in _grouped(outcomes).items()]


def comparisons(table: Table, outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Each arm with rewards against each without of its row, and of the set's other rows where the table says so."""
    rewarded = {(row.name, arm.name): arm.rewarded for row in table.rows for arm in row.arms}
    groups = {place: group for place, group in _grouped(outcomes).items() if place[1:] in rewarded}
    return [
        _compare(first, groups[first], second, groups[second])
        for first in groups
        for second in groups
        if rewarded[first[1:]]
        and not rewarded[second[1:]]
        and first[0] == second[0]
        and (first[1] == second[1] or table.across)
    ]


def _grouped(outcomes: Sequence[Outcome]) -> dict[Place, list[Outcome]]:
    groups: dict[Place, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.set, outcome.row, outcome.arm), []).append(outcome)
    return groups


def _line(table: str, place: Place, group: list[Outcome]) -> Line:
    set_, row, arm = place
    seconds = [outcome.seconds for outcome in group if outcome.seconds]
    return Line(
        place,
        {metric: float(np.mean([_mean(outcome, metric) for outcome in group])) for metric in METRICS},
        [_mean(outcome, DECIDING) for outcome in group],
        round(np.mean([outcome.steps for outcome in group])),
        float(np.mean(seconds)) if seconds else None,
        published().get(table, {}).get(set_, {}).get(row, {}).get(arm, ""),
    )


def _compare(first: Place, ours: list[Outcome], second: Place, theirs: list[Outcome]) -> Comparison:
    seeds = sorted({outcome.seed for outcome in ours} & {outcome.seed for outcome in theirs})
    ours, theirs = ([outcome for outcome in group if outcome.seed in seeds] for group in (ours, theirs))
    gain = paired_gain(DECIDING, _by_image(ours), _by_image(theirs), higher=True, confidence=CONFIDENCE)
    means = [{outcome.seed: _mean(outcome, DECIDING) for outcome in group} for group in (ours, theirs)]
    return Comparison(first, second, gain, sum(means[0][seed] > means[1][seed] for seed in seeds), len(seeds))


def _mean(outcome: Outcome, metric: str) -> float:
    return float(np.mean([values[metric] for values in outcome.images.values()]))


def _by_image(group: list[Outcome]) -> dict[str, float]:
    return {name: float(np.mean([outcome.images[name][DECIDING] for outcome in group])) for name in group[0].images}
