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


def test_a_margin_must_be_exceeded(tmp_path):
    pool = RewardPool(tmp_path, "decorrelation", "v1", margin=0.2)
    pool.offer("a", picture(1), 0.5, 10)
    assert not pool.offer("a", picture(2), 0.7, 20)
    assert pool.offer("a", picture(3), 0.71, 30)


def test_a_reward_of_the_maximum_age_gives_way(tmp_path):
    pool = RewardPool(tmp_path, "decorrelation", "v1", max_age=100)
    pool.offer("a", picture(1), 0.5, 10)
    assert not pool.offer("a", picture(2), 0.1, 109)
    assert pool.offer("a", picture(3), 0.1, 110)


def test_what_the_guard_trusts_replaces_what_it_does_not(pool):
    assert pool.offer("a", picture(1), 0.9, 1, trusted=False)
    assert pool.offer("a", picture(2), 0.1, 2, source="mirror")
    assert not pool.offer("a", picture(3), 0.9, 3, trusted=False)
    assert pool.image("a")[0, 0, 0] == 2
    statistics = pool.statistics()
    assert statistics["pool/refused_rate"] == pytest.approx(2 / 3)
    assert statistics["pool/from_mirror"] == 1.0


def test_another_stages_pool_is_adopted_with_ages_that_count_on(pool, tmp_path):
    pool.offer("a", picture(7), 0.5, 40)
    next_stage = RewardPool(tmp_path / "next", "decorrelation", "v1", max_age=100)
    next_stage.adopt(pool.index(), pool.folder, steps=50)
    assert next_stage.entries["a"].step == -10 and next_stage.image("a")[0, 0, 0] == 7
    assert not next_stage.offer("a", picture(2), 0.1, 89) and next_stage.offer("a", picture(2), 0.1, 90)


def test_a_pool_of_another_version_is_scored_again_when_asked_to(pool, tmp_path):
    pool.offer("a", picture(7), 0.5, 40)

    def rescore(name, image):
        return float(image.mean()), name != "a"

    newer = RewardPool(tmp_path / "newer", "rain_layer", "v2")
    with pytest.raises(BundleError, match="rescore=true"):
        newer.adopt(pool.index(), pool.folder, 50)
    newer.adopt(pool.index(), pool.folder, 50, rescore)
    entry = newer.entries["a"]
    assert (entry.score, entry.first_score, entry.trusted, newer.index()["version"]) == (7.0, 7.0, False, "v2")
    same = RewardPool(tmp_path / "same", "decorrelation", "v1")
    same.adopt(pool.index(), pool.folder, 50, rescore)
    assert same.entries["a"].score == 0.5  # nothing to score again
    with pytest.raises(TrainingError, match="gave nan for image a"):
        newer.adopt(pool.index(), pool.folder, 50, lambda name, image: (float("nan"), True))


def test_a_killed_stage_finds_the_adopted_picture_again(pool, tmp_path):
    pool.offer("a", picture(1), 0.1, 50)
    killed = RewardPool(tmp_path / "next", "decorrelation", "v1")
    killed.adopt(pool.index(), pool.folder, 0)
    killed.offer("a", picture(2), 0.2, 50)  # the same step of the next stage, and no checkpoint after it
    again = RewardPool(tmp_path / "next", "decorrelation", "v1")
    again.adopt(pool.index(), pool.folder, 0)
    assert again.image("a")[0, 0, 0] == 1


def test_an_older_index_still_finds_its_pictures_until_garbage_is_collected(pool, tmp_path):
    pool.offer("a", picture(1), 0.1, 10)
    saved = pool.index()
    pool.offer("a", picture(2), 0.2, 20)
    resumed = RewardPool(tmp_path / "pool", "decorrelation", "v1")
    resumed.restore(saved)
    assert resumed.image("a")[0, 0, 0] == 1
    resumed.collect_garbage()
    assert [path.name for path in (tmp_path / "pool").iterdir()] == [saved["entries"]["a"]["file"]]


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
    (pool.folder / pool.entries["a"].file).unlink()
    with pytest.raises(BundleError, match=f"{pool.entries['a'].file} is missing"):
        pool.image("a")
