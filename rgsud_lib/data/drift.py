"""Do two sets of rainy images look alike? A two-sample test on local statistics, and how heavy their rain is.

Nothing is learnt or downloaded: an image is described by the natural-scene statistics of BRISQUE and NIQE (Mittal,
Moorthy, Bovik, IEEE TIP 2012) at three scales, whose oriented products answer to streaks. The test is the unbiased
MMD of Gretton et al. (JMLR 2012) with permutations, so its p-value is exact whatever the statistics are worth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.stats import wasserstein_distance

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
    """How a set of new images differs from the known ones.

    `p_value` is the chance of an MMD this large between two halves of one set; None where a side is too small.
    `distance` is Wasserstein's, between rain intensities, in [0,1]; `unusual` ranks the new images, strangest first.
    """

    mmd: float
    p_value: float | None
    distance: float
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
    split = len(known)
    mmd, p_value = 0.0, None
    if min(split, len(new)) >= FEWEST:
        mmd, p_value = mmd_test(features[:split], features[split:], seed)
    distance = wasserstein_distance([item.intensity for item in known], [item.intensity for item in new])
    away = np.linalg.norm(features[split:, None] - features[None, :split], axis=2).min(1)
    return Drift(mmd, p_value, float(distance), tuple(np.argsort(-away, kind="stable").tolist()))


def mmd_test(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Unbiased MMD^2 of two samples (N x D and M x D, both of 2 at least) and its permutation p-value.

    The kernel is Gaussian with the median distance of the pooled sample as bandwidth: a permutation leaves it
    as it is, so under equal distributions P(p <= a) <= a holds exactly.
    """
    kernel = _gaussian(np.concatenate([first, second]))
    inside = np.zeros((PERMUTATIONS + 1, len(kernel)))
    inside[:, : len(first)] = 1
    inside[1:] = np.random.default_rng(seed).permuted(inside[1:], axis=1)
    values = _mmd(kernel, inside)
    reached = int((values[1:] >= values[0] - 1e-12).sum())
    return float(values[0]), (1 + reached) / (1 + PERMUTATIONS)


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
