"""pool.html: a row a reward, with its pictures and how it grew; large pools at even ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.training import pool_page as page
from rgsud_lib.training.pool_page import pool_page


def rainy(image_id: str) -> np.ndarray:
    return np.full((40, 60, 3), 10 * int(image_id), np.uint8)


@pytest.fixture
def pool(tmp_path: Path) -> RewardPool:
    filled = RewardPool(tmp_path, "rain_layer", "v1")
    for number in range(9):
        filled.offer(str(number), rainy(str(number)) + 1, 0.5, step=1)
        filled.offer(str(number), rainy(str(number)) + 2, 0.5 + number / 100, step=10 + number, source="ema")
    return filled


def test_each_reward_has_its_pictures_score_step_and_growth(pool: RewardPool) -> None:
    text = pool_page(pool, rainy)
    assert text.count("<img") == 18 and text.count("data:image/webp") == 18
    assert "rain_layer, version v1" in text and "9 rewards" in text
    row = next(line for line in text.splitlines() if "rainy 8" in line)
    assert "<td>0.5800</td><td>+0.0800</td><td>18</td><td>ema</td><td>2</td><td>2</td>" in row
    assert text == pool_page(pool, rainy), "part of the bundle: the same pool, the same bytes"


def test_of_a_large_pool_the_best_the_worst_and_some_between_are_shown(pool, monkeypatch) -> None:
    monkeypatch.setattr(page, "ROWS", 3)
    text = pool_page(pool, rainy)
    assert "3 of 9 rewards" in text and text.count("<img") == 6
    assert "rainy 8" in text and "rainy 0" in text


def test_an_empty_pool_is_a_page_too(tmp_path: Path) -> None:
    assert "0 rewards" in pool_page(RewardPool(tmp_path, "niqe", "1"), rainy)
