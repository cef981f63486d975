from __future__ import annotations

import math

import numpy as np
import pytest

from rgsud_lib.evaluation.bootstrap import mean_interval, paired_gain


def test_the_interval_is_that_of_the_normal_distribution_where_there_are_many() -> None:
    values = np.random.default_rng(1).normal(0.5, 2.0, 400)
    low, high = mean_interval(values, 0.95)
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.03)
    assert mean_interval(values, 0.95) == (low, high), "no chance in it"
    narrow = mean_interval(values, 0.8)
    assert low < narrow[0] < narrow[1] < high


def test_gains_are_paired_by_image_and_positive_is_better() -> None:
    first, second = {"a": 3.0, "b": 5.0, "x": 100.0}, {"b": 6.0, "a": 4.0, "y": 0.0}
    lower = paired_gain("niqe", first, second, higher=False, confidence=0.95)
    assert (lower.count, lower.first, lower.second, lower.gain, lower.low, lower.high) == (2, 4, 5, 1, 1, 1)
    assert paired_gain("psnr_rgb", first, second, higher=True, confidence=0.95).gain == -1


def test_nothing_in_common() -> None:
    empty = paired_gain("niqe", {"a": 1.0}, {}, higher=True, confidence=0.95)
    assert empty.count == 0 and math.isnan(empty.gain)
