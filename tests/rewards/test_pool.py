"""One slot per image, strictly higher only, pictures that an index always finds."""

from __future__ import annotations

import numpy as np
import pytest

from rgsud_lib.errors import BundleError, TrainingError
from rgsud_lib.rewards.pool import RewardPool


@pytest.fixture
def pool(tmp_path) -> RewardPool:
    return RewardPool(tmp_path / "pool", "decorrelation", "v1")


def picture(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_only_a_strictly_higher_score_replaces(pool):
    assert pool.offer("a", picture(1), 0.5, 10)
    assert not pool.offer("a", picture(2), 0.5, 20)
    assert not pool.offer("a", picture(3), 0.4, 30)
    assert pool.offer("a", picture(4), 0.6, 40)
    assert pool.image("a")[0, 0, 0] == 4
    entry = pool.entries["a"]
    assert (entry.score, entry.first_score, entry.step, entry.offered, entry.accepted) == (0.6, 0.5, 40, 4, 2)
    assert pool.statistics()["pool/acceptance_rate"] == 0.5


def test_the_control_keeps_the_last_output(tmp_path):
    pool = RewardPool(tmp_path, "decorrelation", "v1", policy="last")
    pool.offer("a", picture(1), 0.5, 10)
    assert pool.offer("a", picture(2), 0.1, 20)
    assert pool.image("a")[0, 0, 0] == 2


def test_an_older_index_still_finds_its_pictures_until_garbage_is_collected(pool, tmp_path):
    pool.offer("a", picture(1), 0.1, 10)
    saved = pool.index()
    pool.offer("a", picture(2), 0.2, 20)
    resumed = RewardPool(tmp_path / "pool", "decorrelation", "v1")
    resumed.restore(saved)
    assert resumed.image("a")[0, 0, 0] == 1
    resumed.collect_garbage()
    assert [path.name for path in (tmp_path / "pool").iterdir()] == ["a-00000010.png"]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_refused_with_the_images_name(pool, score):
    with pytest.raises(TrainingError, match="image a at step 3"):
        pool.offer("a", picture(1), score, 3)


def test_scores_of_another_version_are_not_compared(pool, tmp_path):
    other = RewardPool(tmp_path / "other", "decorrelation", "v2")
    with pytest.raises(BundleError, match="version v1, this run uses decorrelation version v2"):
        other.restore(pool.index())


def test_a_missing_picture_is_named(pool):
    pool.offer("a", picture(1), 0.1, 1)
    pool.restore(pool.index())
    (pool.folder / "a-00000001.png").unlink()
    with pytest.raises(BundleError, match="a-00000001.png is missing"):
        pool.image("a")
