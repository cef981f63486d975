"""Do two sets of rainy images look alike? A two-sample test on local statistics, and how heavy their rain is.

Nothing is learnt or downloaded: an image is described by the natural-scene statistics of BRISQUE and NIQE (Mittal,
Moorthy, Bovik, IEEE TIP 2012) at three scales, whose oriented products answer to streaks. The test is the unbiased
MMD of Gretton et al. (JMLR 2012) with permutations, so its p-value holds whatever the statistics are worth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SCALES = 3
WINDOW = 512  # pixels of the central square that is looked at, at native resolution: streaks keep their width
STREAK = 9  # pixels: rain is narrower than this
PERMUTATIONS = 999
FEWEST = 5  # images a side below which nothing is tested
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class Description:
    """An image as the drift test sees it: `features` of length 22, `intensity` of its rain in [0,1]."""

    features: np.ndarray
    intensity: float


@dataclass(frozen=True)
class Drift:
    """How a set of new images differs from the known ones: MMD^2 of their statistics, and Wasserstein's distance, in
    [0,1], of their rain intensities.

    `p_value` is the chance of either being so large if both sets were drawn from one (Bonferroni over the two tests);
    None where a side is too small. `unusual` ranks the new images, strangest first.
    """

    mmd: float
    distance: float
    p_value: float | None
    unusual: tuple[int, ...]


def choose(ids: Iterable[str], count: int) -> list[str]:
    """At most `count` of the ids, those with the smallest hash: the same whatever their order."""
    return sorted(ids, key=lambda id: hashlib.sha256(id.encode()).digest())[:count]


def describe(image: np.ndarray) -> Description:
    """Statistics of a uint8 H x W x 3 image, of at least 16 pixels a side, from its central square."""
    square = _centre(image).astype(np.float32) / 255
    intensity = rain_intensity(square)
    luma = square @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = float((square.max(2) - square.min(2)).mean())
    features = [float(luma.mean()), float(luma.std()), colour, intensity]
    for _ in range(SCALES):
        features += _scene_statistics(luma)
        luma = ndimage.zoom(ndimage.gaussian_filter(luma, 1.0), 0.5, order=1)
    return Description(np.array(features), intensity)


def rain_intensity(square: np.ndarray) -> float:
    """Mean brightness, in [0,1], of what is narrow and upright and alike in all channels of an image in [0,1].

    A white top-hat along rows keeps what is narrower than a streak; texture passes it in both directions,
    so the top-hat along columns is taken off. An estimate from the image alone: no model is needed, and
    it means the same for every generation of models. Rain blown more than 45 degrees from upright escapes it.
    """
    light = square.min(2)
    across = light - ndimage.grey_opening(light, size=(1, STREAK))
    along = light - ndimage.grey_opening(light, size=(STREAK, 1))
    return float(max(0.0, across.mean() - along.mean()))


def compare(known: list[Description], new: list[Description], seed: int = 0) -> Drift:
    """The drift of `new` against `known`, both not empty."""
    features = np.stack([item.features for item in (*known, *new)])
    spread = features.std(0)
    features = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    split, enough = len(known), min(len(known), len(new)) >= FEWEST
    mmd, of_mmd = mmd_test(features[:split], features[split:], seed) if enough else (0.0, 1.0)
    rain = [np.array([item.intensity for item in side]) for side in (known, new)]
    distance, of_distance = distance_test(*rain, seed)
    p_value = min(1.0, 2 * min(of_mmd, of_distance)) if enough else None
    away = np.linalg.norm(features[split:, None] - features[None, :split], axis=2).min(1)
    return Drift(mmd, distance, p_value, tuple(np.argsort(-away, kind="stable").tolist()))


def mmd_test(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Unbiased MMD^2 of two samples (N x D and M x D, both of 2 at least) and its permutation p-value.

    The kernel is Gaussian with the median distance of the pooled sample as bandwidth: a permutation leaves it
    as it is, so under equal distributions P(p <= a) <= a holds exactly.
    """
    kernel = _gaussian(np.concatenate([first, second]))
    values = _mmd(kernel, _assignments(len(first), len(second), seed))
    return float(values[0]), _p_value(values)


def distance_test(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Wasserstein's distance of two samples of numbers (the area between their CDFs), its permutation p-value."""
    pooled = np.concatenate([first, second])
    order = pooled.argsort(kind="stable")
    inside = _assignments(len(first), len(second), seed)[:, order]
    apart = np.abs(inside.cumsum(1) / len(first) - (1 - inside).cumsum(1) / len(second))
    values = apart[:, :-1] @ np.diff(pooled[order])
    return float(values[0]), _p_value(values)


def _assignments(first: int, second: int, seed: int) -> np.ndarray:
    """Which of the pooled samples are of the first (1) and the second (0) set: as observed, then at random."""
    inside = np.zeros((PERMUTATIONS + 1, first + second))
    inside[:, :first] = 1
    inside[1:] = np.random.default_rng(seed).permuted(inside[1:], axis=1)
    return inside


def _p_value(values: np.ndarray) -> float:
    """Share of values, the first of which was observed, that reach it; rounding does not decide between equals."""
    return float((values >= values[0] * (1 - 1e-9) - 1e-12).mean())


def _mmd(kernel: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Unbiased MMD^2 for each row of `inside`, which marks the first sample; the kernel's diagonal is zero."""
    size = inside.sum(1)
    other = len(kernel) - size
    within = ((inside @ kernel) * inside).sum(1)
    across = inside @ kernel.sum(1) - within
    rest = kernel.sum() - 2 * across - within
    return within / (size * (size - 1)) + rest / (other * (other - 1)) - 2 * across / (size * other)


def _gaussian(features: np.ndarray) -> np.ndarray:
    squares = np.square(features).sum(1)
    apart = np.maximum(squares[:, None] + squares[None] - 2 * features @ features.T, 0)
    median = np.median(apart[np.triu_indices(len(apart), 1)])
    kernel = np.exp(-apart / (median if median > 0 else 1.0))
    np.fill_diagonal(kernel, 0)
    return kernel


def _scene_statistics(luma: np.ndarray) -> list[float]:
    """Spread and peakedness of the contrast-normalised luma, and its correlation in four directions."""
    mean = ndimage.gaussian_filter(luma, 7 / 6)
    deviation = np.sqrt(np.abs(ndimage.gaussian_filter(luma**2, 7 / 6) - mean**2))
    normal = (luma - mean) / (deviation + 1 / 255)
    power = float(np.square(normal).mean()) + 1e-12
    shifted = [float((normal * np.roll(normal, shift, (0, 1))).mean()) / power for shift in SHIFTS]
    return [power, float(np.abs(normal).mean()) ** 2 / power, *shifted]


def _centre(image: np.ndarray) -> np.ndarray:
    top, left = (max(0, (size - WINDOW) // 2) for size in image.shape[:2])
    return image[top : top + WINDOW, left : left + WINDOW]
