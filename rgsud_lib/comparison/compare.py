"""The comparison as one document: settings that differ, values with what the first run's were, cost.

Every other run is compared with the first, image by image (paired bootstrap), so that what is hard about an image
cancels out. A metric that one of the runs had as its reward is shown and marked: it is no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rgsud_lib.comparison.runs import Run, needs_scorer, scorers_of
from rgsud_lib.config import digest_of
from rgsud_lib.cost.model import all_spent
from rgsud_lib.cost.prices import Prices
from rgsud_lib.cost.spent import Total, total
from rgsud_lib.evaluation.bootstrap import Gain, paired_gain
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.evaluation.verdict import FEW_IMAGES, GROUPS, LEAST_FOR_INTERVAL, transductive_note
from rgsud_lib.scorer_names import parse_scorer, shared

CONFIDENCE = 0.95
WEIGHTS = "derainer.safetensors"
GROUP_TITLES = {"pairs": "pairs", "held_back_rainy": "held-back rainy images"}


@dataclass(frozen=True)
class Row:
    """One metric of one group: the rainy inputs' mean, each run's, and each later run's gain over the first."""

    group: str
    metric: str
    higher: bool
    count: int
    rewards: tuple[str, ...]  # letters of the runs whose reward it was, or had a part of it
    before: float | None  # None: their score is not known
    means: tuple[float, ...]
    gains: tuple[Gain, ...]

    def verdict(self, index: int) -> str:
        """What the interval of the run at `index` > 0 says: "better", "worse" or "not told apart"."""
        gain = self.gains[index - 1]
        if self.count < LEAST_FOR_INTERVAL or gain.low <= 0 <= gain.high:
            return "not told apart"
        return "better" if gain.low > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """`settings`: path to each run's value, only where they differ; `notes`: what to know before trusting it."""

    runs: Sequence[Run]
    settings: dict[str, list[Any]]
    rows: list[Row]
    totals: list[Total]
    notes: list[str] = field(default_factory=list)
    prices: Prices | None = None

    @property
    def key(self) -> str:
        """The same for the same runs in the same order."""
        return digest_of([[run.name, run.bundle.digest] for run in self.runs])

    @property
    def main(self) -> Row | None:
        """The row that decides: PSNR of the pairs, else the first score that was nobody's reward."""
        return next((row for row in self.rows if not row.rewards), None)

    def document(self) -> dict[str, Any]:
        """compare.json."""
        return {
            "runs": {run.letter: {"place": str(run.bundle.path), "digest": run.bundle.digest} for run in self.runs},
            "manifest": self.runs[0].manifest,
            "settings": self.settings,
            "metrics": [asdict(row) for row in self.rows],
            "cost": {run.letter: asdict(sums) for run, sums in zip(self.runs, self.totals, strict=True)},
            "currency": self.prices.currency if self.prices else None,
            "notes": self.notes,
        }


def compare(runs: Sequence[Run], prices: Prices | None = None) -> Comparison:
    """`runs` as `open_runs` checked them; the first is what the others are measured against."""
    rows = [row for group in GROUPS for metric in _metrics(runs, group) if (row := _row(runs, group, metric))]
    totals = [total(all_spent(run.costs), prices) for run in runs]
    return Comparison(runs, _differences(runs), rows, totals, _notes(runs, rows), prices)


def _differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    found = [run.settings for run in runs]
    if not all(found):
        return {}
    paths = dict.fromkeys(path for settings in found for path in settings)
    values = {path: [settings.get(path) for settings in found] for path in paths}
    values["code version"] = [run.bundle.code_version for run in runs]
    return {path: group for path, group in values.items() if any(value != group[0] for value in group[1:])}


def _metrics(runs: Sequence[Run], group: str) -> list[str]:
    """Those that all runs have: paired metrics, judges, rewards last."""
    scorers = [run.summary["judge"] for run in runs] + [run.summary["scorer"] for run in runs]
    names = dict.fromkeys((*METRICS, *scorers))
    return [name for name in names if all((group, run.model, name) in run.values for run in runs)]


def _row(runs: Sequence[Run], group: str, metric: str) -> Row | None:
    if needs_scorer(metric) and not _same_scorer(runs, metric):
        return None
    values = [run.values[group, run.model, metric] for run in runs]
    images = set.intersection(*map(set, values))
    if not images:
        return None
    values = [{image: own[image] for image in images} for own in values]
    before = runs[0].values.get((group, "input", metric), {})
    higher = runs[0].summary["higher_is_better"][metric]
    return Row(
        group,
        metric,
        higher,
        len(images),
        tuple(run.letter for run in runs if shared(metric, run.summary["scorer"])) if needs_scorer(metric) else (),
        _mean({image: before[image] for image in images}) if images <= before.keys() else None,
        tuple(map(_mean, values)),
        tuple(paired_gain(metric, other, values[0], higher, CONFIDENCE) for other in values[1:]),
    )


def _same_scorer(runs: Sequence[Run], metric: str) -> bool:
    """Whether the values of a no-reference score mean the same: its settings and, for the critic, its weights."""
    first, *others = [scorers_of(run) for run in runs]
    keys = ["scorers", *(["dataset"] if "critic" in parse_scorer(metric) else [])]
    return all(other[key] == first[key] for other in others for key in keys)


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def _same_weights(runs: Sequence[Run]) -> list[list[str]]:
    """Letters of the runs whose models are one and the same."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if model := run.made_from.get("reinforced"):
            found.setdefault(model.files[WEIGHTS], []).append(run.letter)
    return [letters for letters in found.values() if len(letters) > 1]


def _notes(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    notes = [f"{run.letter}: {note}." for run in runs if (note := transductive_note(run.summary))]
    notes += [f"{' and '.join(letters)} ended in the same weights, to the bit." for letters in _same_weights(runs)]
    few = {row.group: row.count for row in rows if row.count < FEW_IMAGES}
    counts = (f"{count} {GROUP_TITLES[group]}" for group, count in few.items())
    notes += [f"Only {text}: the interval of so few is too narrow." for text in counts]
    if not all(run.settings for run in runs):
        notes.append("A run was made before bundles said their settings: differences are not known.")
    missing = dict.fromkeys(name for run in runs for name in (run.summary["judge"], run.summary["scorer"]))
    missing = [name for name in missing if name not in {row.metric for row in rows}]
    if missing:
        notes.append(f"Not compared, since not all runs have it or its settings differ: {', '.join(missing)}.")
    unknown = [run.letter for run in runs if not all(cost.spent for cost in run.costs)]
    if unknown:
        notes.append(f"The cost of {', '.join(unknown)} lacks stages that were made before they measured it.")
    shared_stages = sorted({a.stage for a in runs[0].costs for run in runs[1:] for b in run.costs
                            if a.digest == b.digest and a.stage == b.stage})  # fmt: skip
    if shared_stages:
        notes.append(f"Runs share what they did not repeat ({', '.join(shared_stages)}); its cost counts in each.")
    return notes
