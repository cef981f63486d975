"""From scores to words: means, and what a reader must be told with them (transductive, no gain, judge at odds)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rgsud_lib.evaluation.bootstrap import mean_interval
from rgsud_lib.evaluation.metrics import METRICS

FEW_IMAGES = 10
LEAST_FOR_INTERVAL = 3  # fewer images say nothing about how far their mean may be off
TIE_DB = 0.05  # a smaller difference of mean PSNR is called a tie
GROUPS = ("pairs", "held_back_rainy")
LABELS = {
    "input": "rainy input",
    "warm_start": "warm start",
    "recycled": "stage 1",
    "reinforced": "stage 2",
    "psnr_rgb": "PSNR RGB",
    "ssim_rgb": "SSIM RGB",
    "psnr_y": "PSNR Y",
    "ssim_y": "SSIM Y",
    "niqe": "NIQE",
}


def summarise(
    rows: Sequence[dict[str, Any]], models: Sequence[str], directions: dict[str, bool], judge: str, scorer: str,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The document metrics.json. `directions`: which score is better when higher; `warnings` come before our own."""
    summary: dict[str, Any] = {
        "models": list(models),
        "judge": judge,
        "scorer": scorer,
        "higher_is_better": dict.fromkeys(METRICS, True) | directions,
    }
    for group in GROUPS:
        members = [row for row in rows if row["group"] == group]
        summary[group] = _means(members, models, summary["higher_is_better"]) if members else None
    if summary["pairs"]:
        seen = {row["name"] for row in rows if row["group"] == "pairs" and row["transductive"]}
        summary["pairs"]["transductive"] = len(seen)
    summary["warnings"] = [*warnings, *_warnings(summary, rows)]
    return summary


def transductive_note(summary: dict[str, Any]) -> str:
    """ "transductive: 45 of 50 rainy inputs were trained on", or nothing; it goes wherever a result is shown."""
    pairs = summary["pairs"]
    if not pairs or not pairs["transductive"]:
        return ""
    return f"transductive: {pairs['transductive']} of {pairs['count']} rainy inputs were trained on"


def headline(summary: dict[str, Any]) -> dict[str, Any]:
    """The result in plain words: {"title", "text", "numbers": [{"label", "before", "after", "better"}]}."""
    group, names = ("pairs", METRICS) if summary["pairs"] else ("held_back_rainy", ())
    part = summary[group]
    if part is None:
        return {"title": "Nothing to evaluate", "text": "No pairs and no held-back rainy images.", "numbers": []}
    # The reward is no evidence: the models were trained to please it. It is in the tables, marked.
    names = [name for name in (*names, summary["judge"]) if name in part["mean"]["input"]]
    numbers = [_before_after(summary, group, name) for name in names]
    images = _count(summary, group)
    if not numbers:
        return {"title": "No scores", "text": f"None of the scorers could score the {images}.", "numbers": []}
    first = numbers[0]
    if group == "pairs":
        gain = first["after"] - first["before"]
        if gain > TIE_DB:
            title = f"The derained images are {gain:.1f} dB closer to the truth"
        else:
            title = "Deraining brought the images no closer to the truth"
        text = f"Mean over {images}: rainy input against its clean image, then the derained image against it."
    else:
        title = f"{first['label']} judges the derained images {'better' if first['better'] else 'no better'}"
        text = f"Mean over {images} that were not trained on; there are no clean originals to compare with."
    return {"title": title, "text": text, "numbers": numbers}


def label(name: str) -> str:
    return LABELS.get(name, name)


def decimals(name: str) -> int:
    """Digits after the point that a metric is shown with."""
    return 2 if name.startswith("psnr") or name == "niqe" else 3


def shown_metrics(summary: dict[str, Any], group: str) -> list[str]:
    """The metrics that a table of this group has, in reading order: the reward last."""
    names = (*METRICS, summary["judge"], summary["scorer"])
    return [name for name in names if name in summary[group]["mean"]["input"]]


def better(summary: dict[str, Any], name: str, first: float, second: float) -> bool:
    """Whether `first` is strictly better than `second` in the metric's own direction."""
    return first > second if summary["higher_is_better"][name] else first < second


def best_model(summary: dict[str, Any], group: str, name: str) -> str:
    """The model with the best mean."""
    means = {model: values[name] for model, values in summary[group]["mean"].items() if name in values}
    choose = max if summary["higher_is_better"][name] else min
    return choose(means, key=means.__getitem__)


def _before_after(summary: dict[str, Any], group: str, name: str) -> dict[str, Any]:
    mean = summary[group]["mean"]
    before, after = mean["input"][name], mean[summary["models"][-1]][name]
    return {
        "name": name,
        "label": label(name),
        "digits": decimals(name),
        "before": before,
        "after": after,
        "better": better(summary, name, after, before),
        "higher": summary["higher_is_better"][name],
    }


def _count(summary: dict[str, Any], group: str) -> str:
    count, name = summary[group]["count"], "pair" if group == "pairs" else "held-back rainy image"
    return f"{count} {name}{'' if count == 1 else 's'}"


def _means(rows: Sequence[dict[str, Any]], models: Sequence[str], metrics: Iterable[str]) -> dict[str, Any]:
    """Mean of each metric over the images that have it, with its 95 % interval; one that no image has is left out."""
    mean: dict[str, dict[str, float]] = {model: {} for model in models}
    interval: dict[str, dict[str, tuple[float, float]]] = {model: {} for model in models}
    for model in models:
        for name in metrics:
            values = [row[name] for row in rows if row["model"] == model and name in row]
            if values:
                mean[model][name] = math.fsum(values) / len(values)
                if len(values) >= LEAST_FOR_INTERVAL:
                    interval[model][name] = mean_interval(np.array(values), 0.95)
    return {"count": sum(row["model"] == models[0] for row in rows), "mean": mean, "interval": interval}


def _warnings(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    warnings = []
    if note := transductive_note(summary):
        warnings.append(
            f"{note[0].upper()}{note[1:]}, so the pairs do not show how the model does on images it never saw."
        )
    for group in GROUPS:
        if summary[group] and summary[group]["count"] < FEW_IMAGES:
            warnings.append(f"Only {_count(summary, group)}: their mean says little.")
    if summary["pairs"]:
        warnings += _pair_warnings(summary, rows)
    return warnings + _judge_warnings(summary)


def _pair_warnings(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    psnr = {model: values["psnr_rgb"] for model, values in summary["pairs"]["mean"].items()}
    final, warnings = psnr["reinforced"], []
    if final < psnr["input"]:
        warnings.append(
            f"Stage 2's images are farther from the truth ({final:.2f} dB) "
            f"than the rainy inputs ({psnr['input']:.2f} dB)."
        )
    for earlier in ("recycled", "warm_start"):
        if earlier in psnr and final < psnr[earlier] - TIE_DB:
            warnings.append(
                f"Stage 2 ({final:.2f} dB) is worse than {label(earlier)} ({psnr[earlier]:.2f} dB), PSNR RGB."
            )
    if abs(final - psnr["recycled"]) <= TIE_DB:
        warnings.append(
            f"Stage 2 and stage 1 are within {TIE_DB} dB of each other: self-reinforcement gained nothing here."
        )
    gains = list(image_gains(summary, rows, "pairs", "psnr_rgb").values())
    if worse := sum(gain < 0 for gain in gains):
        warnings.append(
            f"{worse} of {len(gains)} images are farther from the truth after deraining than before (PSNR RGB)."
        )
    return warnings


def _judge_warnings(summary: dict[str, Any]) -> list[str]:
    """Where the judge says otherwise than PSNR, or falls while the reward rises."""
    judge, scorer, warnings = summary["judge"], summary["scorer"], []
    for group in GROUPS:
        mean = summary[group]["mean"] if summary[group] else {}
        if judge not in mean.get("reinforced", {}):
            continue
        first, last = mean["recycled"], mean["reinforced"]
        if group == "pairs":
            ours, theirs = best_model(summary, group, "psnr_rgb"), best_model(summary, group, judge)
            if ours != theirs:
                warnings.append(
                    f"The judges disagree on the pairs: {label(judge)} prefers {label(theirs)}, PSNR RGB {label(ours)}."
                )
        elif better(summary, judge, mean["input"][judge], last[judge]):
            warnings.append(f"{label(judge)} finds the held-back rainy inputs better than what stage 2 makes of them.")
        if (
            scorer in last
            and better(summary, scorer, last[scorer], first[scorer])
            and better(summary, judge, first[judge], last[judge])
        ):
            where = "the pairs" if group == "pairs" else "the held-back rainy images"
            warnings.append(
                f"From stage 1 to stage 2 the reward ({label(scorer)}) rose on {where}, "
                f"but the judge ({label(judge)}) got worse."
            )
    return warnings


def image_gains(summary: dict[str, Any], rows: Sequence[dict[str, Any]], group: str, name: str) -> dict[str, float]:
    """Per image (by name): the last model's gain over the rainy input in `name`, positive where it is better."""
    sign = 1 if summary["higher_is_better"][name] else -1
    values = {(row["name"], row["model"]): row[name] for row in rows if row["group"] == group and name in row}
    last = summary["models"][-1]
    names = dict.fromkeys(image for image, _ in values)
    return {
        image: sign * (values[image, last] - values[image, "input"])
        for image in names
        if (image, last) in values and (image, "input") in values
    }
