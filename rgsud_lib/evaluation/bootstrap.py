"""How sure a difference of means is: paired bootstrap over the images (Efron 1979, percentile interval)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES, CHUNK = 2000, 100


@dataclass(frozen=True)
class Gain:
    """Means of `first` and `second` over the images that both have, and the interval of first's mean gain.

    A gain above 0 means that `first` is better, whatever the metric's direction.
    """

    metric: str
    count: int
    first: float
    second: float
    gain: float
    low: float
    high: float


def paired_gain(
    metric: str, first: Mapping[str, float], second: Mapping[str, float], higher: bool, confidence: float
) -> Gain:
    """Compare two models' values by image; `higher`: whether higher is better. No common image: NaN throughout."""
    images = sorted(first.keys() & second.keys())
    ours, theirs = np.array([first[image] for image in images]), np.array([second[image] for image in images])
    gains = (ours - theirs) * (1 if higher else -1)
    if not len(gains):
        return Gain(metric, 0, *[float("nan")] * 5)
    low, high = mean_interval(gains, confidence)
    return Gain(metric, len(images), float(ours.mean()), float(theirs.mean()), float(gains.mean()), low, high)


def mean_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Two-sided interval of the mean of N values. Always the same for the same values; too narrow for few of them."""
    generator, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES // CHUNK):  # thousands of images would not fit at once
        means.append(values[generator.integers(len(values), size=(CHUNK, len(values)))].mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)
