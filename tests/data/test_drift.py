"""The two-sample test keeps its promise about false alarms, and hears other rain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from rgsud_lib.data.drift import FEWEST, choose, compare, describe, distance_test, mmd_test, rain_intensity
from rgsud_lib.data.images import to_uint8
from rgsud_lib.data.rain import draw_rain


@pytest.mark.parametrize(("test", "shape", "runs"), [(mmd_test, (6,), 120), (distance_test, (), 120)])
def test_p_values_of_equal_distributions_are_uniform(test: Callable[..., Any], shape: tuple[int, ...], runs: int):
    rng = np.random.default_rng(0)
    values = np.array([test(rng.normal(size=(24, *shape)), rng.normal(size=(15, *shape)), s)[1] for s in range(runs)])
    for level in (0.05, 0.2, 0.5, 0.8):
        # Three standard deviations of a binomial share around the level.
        assert abs((values <= level).mean() - level) < 3 * np.sqrt(level * (1 - level) / len(values))


@pytest.mark.parametrize("change", ["mean", "spread"])
def test_another_distribution_is_rejected(change: str) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(40, 6)), rng.normal(size=(30, 6))
    second = second + 1 if change == "mean" else 2.5 * second
    mmd, p_value = mmd_test(first, second)
    assert mmd > 0 and p_value == 0.001


def test_mmd_is_unbiased_and_symmetric() -> None:
    rng = np.random.default_rng(2)
    values = [mmd_test(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)))[0] for _ in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    first, second = rng.normal(size=(20, 3)), rng.normal(size=(9, 3)) + 0.3
    assert mmd_test(first, second)[0] == pytest.approx(mmd_test(second, first)[0])
    assert mmd_test(first, second) == mmd_test(first, second)


def test_the_distance_is_wassersteins() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=17), rng.normal(size=9) + 0.5
    assert distance_test(first, second)[0] == pytest.approx(wasserstein_distance(first, second))
    assert distance_test(first, first) == (0.0, 1.0)


def scene(seed: int, strength: float) -> np.ndarray:
    """A random scene under two layers of drawn rain, uint8 96 x 128 x 3."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(96, 128), mode="bicubic")
    grain = 0.04 * torch.randn(1, 1, 96, 128, generator=generator)
    rainy = draw_rain((0.7 * smooth + grain).clamp(0, 1), seed, strength)
    return np.ascontiguousarray(to_uint8(draw_rain(rainy, seed + 1000, strength))[0])


def test_rain_intensity_grows_with_the_rain() -> None:
    means = [
        np.mean([rain_intensity(scene(seed, strength).astype(np.float32) / 255) for seed in range(6)])
        for strength in (0.0, 0.5, 1.0)
    ]
    assert means == sorted(means)
    assert means[2] > 5 * means[0]


def test_heavier_rain_is_drift_and_the_same_rain_is_none() -> None:
    known = [describe(scene(seed, 0.3)) for seed in range(24)]
    same, heavy = ([describe(scene(seed, strength)) for seed in range(50, 62)] for strength in (0.3, 1.5))
    assert compare(known, same).p_value > 0.05
    drift = compare(known, heavy)
    assert drift.p_value <= 0.01
    assert drift.distance > 3 * compare(known, same).distance
    assert sorted(drift.unusual) == list(range(12))


def test_too_few_images_are_not_tested() -> None:
    known = [describe(scene(seed, 0.4)) for seed in range(FEWEST)]
    drift = compare(known, known[: FEWEST - 1])
    assert (drift.mmd, drift.p_value) == (0.0, None)


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 1000, 3), (900, 700, 3)])
def test_any_size_and_flat_pictures_have_a_description(shape: tuple[int, ...]) -> None:
    for image in (np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)):
        assert np.isfinite(describe(image).features).all()


def test_the_sample_does_not_depend_on_the_order() -> None:
    ids = [f"{index:04}" for index in range(100)]
    assert choose(ids, 10) == choose(reversed(ids), 10)
    assert set(choose(ids[:50], 10)) >= set(choose(ids, 10)) & set(ids[:50])
