"""Which images a round scores, and what a candidate is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from rgsud_lib.rewards import build_scorer
from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.training.recycling import Recycler, mirrored


def recycler(tmp_path, sizes: dict[str, tuple[int, int]]) -> tuple[Recycler, list[tuple[int, ...]]]:
    images = {name: np.full((*size, 3), 100, np.uint8) for name, size in sizes.items()}
    batches: list[tuple[int, ...]] = []

    def derain(rainy: torch.Tensor) -> torch.Tensor:
        batches.append(tuple(rainy.shape))
        return rainy * 0.9

    scorer = build_scorer("decorrelation", [])
    pool = RewardPool(tmp_path, scorer.name, scorer.version)
    return Recycler(list(images), images.__getitem__, scorer, pool, 0, derain), batches


def test_each_epoch_visits_every_image_once(tmp_path):
    made, _ = recycler(tmp_path, {name: (16, 16) for name in "abcdefg"})
    visits = [made._visit(position) for position in range(21)]
    assert Counter(visits) == dict.fromkeys("abcdefg", 3)
    assert visits[:7] != visits[7:14]


def test_images_of_one_size_are_derained_together(tmp_path):
    made, batches = recycler(tmp_path, {"a": (16, 24), "b": (24, 16), "c": (16, 24)})
    made.recycle_all(step=5)
    assert sorted(batches) == [(1, 3, 24, 16), (2, 3, 16, 24)]
    assert set(made.pool.entries) == {"a", "b", "c"}


def test_more_images_a_round_than_there_are(tmp_path):
    made, _ = recycler(tmp_path, {"a": (16, 16), "b": (16, 16)})
    made.recycle_some(0, 8, step=1)
    assert {entry.offered for entry in made.pool.entries.values()} == {1}


def test_mirrored_candidates_do_not_depend_on_left_and_right():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    image = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        both = mirrored(network)
        torch.testing.assert_close(both(image.flip(-1)).flip(-1), both(image))
        assert not torch.allclose(network(image.flip(-1)).flip(-1), network(image))
