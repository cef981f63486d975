"""Whether a challenger becomes champion: the configuration's rules, applied to scores of the same images.

Pure: scores in, a verdict out, so that its truth table is a test. The reward has no say: the model was
trained to please it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rgsud_lib.config import GateConfig
from rgsud_lib.evaluation.bootstrap import Gain, paired_gain

PAIRS, RAINY, CLEAN = "pairs", "rainy", "clean"
CLEAN_METRIC = f"{CLEAN}/psnr_rgb"


@dataclass(frozen=True)
class Scores:
    """One model's scores: `values["pairs/psnr_rgb"]` by image, native direction; `fault`: why there are none."""

    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds_per_megapixel: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class Contest:
    """Scores on the same images. `judges`, and the reward for display: whether higher is better."""

    challenger: Scores
    champion: Scores | None
    do_nothing: Scores
    judges: Mapping[str, bool]
    reward: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One rule: did it hold, in words, and the values it looked at."""

    rule: str
    passed: bool
    text: str
    gains: tuple[Gain, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """ "promote" or "hold", with each rule that led there; `reward`: how the reward sees it, which did not count."""

    decision: Literal["promote", "hold"]
    checks: tuple[Check, ...]
    reward: Gain | None = None

    @property
    def reasons(self) -> list[str]:
        """What failed, or, where nothing did, all that held."""
        failed = [check.text for check in self.checks if not check.passed]
        return failed or [check.text for check in self.checks]

    def document(self) -> dict[str, Any]:
        """verdict.json: numbers that are not finite become null."""
        return _finite(asdict(self) | {"reasons": self.reasons})


def hold(rule: str, text: str) -> Verdict:
    """A verdict without a contest."""
    return Verdict("hold", (Check(rule, False, text),))


def decide(rules: GateConfig, contest: Contest) -> Verdict:
    """Apply all rules; "promote" only where each holds."""
    challenger, champion = contest.challenger, contest.champion
    for name, scores in (("challenger", challenger), ("champion", champion)):
        fault = _fault(scores) if scores else ""
        if fault:
            return hold(f"sound {name}", f"the {name} {fault}")
    checks = [Check("sound", True, "the challenger loads, and its outputs are finite pictures")]
    checks.append(_quality(rules, contest, contest.do_nothing, "doing nothing", 0.0))
    if champion is not None:
        checks.append(_quality(rules, contest, champion, "the champion", rules.margin))
    checks.append(_harmless(rules, challenger, champion))
    if champion is not None and rules.slowdown:
        checks.append(_quick(rules, challenger, champion))
    if rules.slowest:
        checks.append(_in_time(rules, challenger))
    decision = "promote" if all(check.passed for check in checks) else "hold"
    return Verdict(decision, tuple(checks), _by_reward(rules, contest))


def _fault(scores: Scores) -> str:
    if scores.fault:
        return scores.fault
    for metric, values in scores.values.items():
        for image, value in values.items():
            if not math.isfinite(value):
                return f"got {metric} = {value} for image {image}"
    return ""


def _quality(rules: GateConfig, contest: Contest, other: Scores, name: str, margin: float) -> Check:
    """Pairs decide where there are enough of them, else the judges."""
    rule = f"better than {name}"
    gain = _gain(rules, contest, other, f"{PAIRS}/{rules.metric}", higher=True)
    if gain.count >= rules.min_images:
        passed = gain.low > margin
        text = f"{'' if passed else 'not '}{rule}: {_words(gain)}" + (f", margin {margin:g}" if margin else "")
        return Check(rule, passed, text, (gain,))
    gains = tuple(
        gain
        for judge, higher in contest.judges.items()
        if (gain := _gain(rules, contest, other, f"{RAINY}/{judge}", higher)).count >= rules.min_images
    )
    if len(gains) < 2:
        return Check(rule, False, f"not known to be {rule}: fewer than {rules.min_images} held-back images to compare")
    prefer, against = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    passed = prefer >= 2 and not against
    text = f"{'' if passed else 'not '}{rule}: {prefer} of {len(gains)} judges say so, {against} the contrary; "
    return Check(rule, passed, text + "; ".join(map(_words, gains)), gains)


def _gain(rules: GateConfig, contest: Contest, other: Scores, metric: str, higher: bool) -> Gain:
    ours, theirs = contest.challenger.values.get(metric, {}), other.values.get(metric, {})
    return paired_gain(metric, ours, theirs, higher, rules.confidence)


def _harmless(rules: GateConfig, challenger: Scores, champion: Scores | None) -> Check:
    rule = "harmless to clean images"
    ours = _pooled_psnr(challenger.values.get(CLEAN_METRIC, {}))
    if ours is None:
        return Check(rule, False, "not known to be harmless: the dataset holds back no clean image")
    theirs = _pooled_psnr(champion.values.get(CLEAN_METRIC, {})) if champion else None
    least = rules.clean_psnr
    if theirs is not None:  # a champion that does little leaves clean images alone: it must stay replaceable
        least = max(least, min(theirs - rules.clean_drop, rules.clean_enough))
    text = f"clean images come back at {ours:.2f} dB"
    text += "" if theirs is None else f" (champion {theirs:.2f} dB)"
    return Check(rule, ours >= least, f"{text}, at least {least:.2f} dB needed")


def _pooled_psnr(values: Mapping[str, float]) -> float | None:
    """PSNR of the mean squared error over all images: one spoilt image counts, however many stay untouched."""
    errors = [10 ** (-value / 10) for value in values.values()]
    return -10 * math.log10(math.fsum(errors) / len(errors)) if errors else None


def _quick(rules: GateConfig, challenger: Scores, champion: Scores) -> Check:
    ours, theirs = challenger.seconds_per_megapixel, champion.seconds_per_megapixel
    text = f"{ours:.2f} s a megapixel (champion {theirs:.2f} s), at most {rules.slowdown:g} times as long allowed"
    return Check("quick", ours <= rules.slowdown * theirs, text)


def _in_time(rules: GateConfig, challenger: Scores) -> Check:
    seconds = challenger.seconds_per_megapixel
    return Check(
        "in time", seconds <= rules.slowest, f"{seconds:.2f} s a megapixel, at most {rules.slowest:g} s allowed"
    )


def _by_reward(rules: GateConfig, contest: Contest) -> Gain | None:
    other = contest.champion or contest.do_nothing
    gains = (_gain(rules, contest, other, f"{RAINY}/{name}", higher) for name, higher in contest.reward.items())
    return next((gain for gain in gains if gain.count), None)


def _words(gain: Gain) -> str:
    return (
        f"{gain.metric} {gain.first:.3f} against {gain.second:.3f} on {gain.count} images, "
        f"gain {gain.gain:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    )


def _finite(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: _finite(value) for name, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
