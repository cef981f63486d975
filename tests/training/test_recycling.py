"""Which images a round scores, what a candidate is, and what the guard keeps out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from rgsud_lib.config import RewardConfig
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.rain import draw_rain
from rgsud_lib.errors import ConfigError
from rgsud_lib.rewards.decorrelation import Decorrelation
from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.rewards.rain_layer import RainLayer
from rgsud_lib.training.budget import SLOWER, Budget, count_flops
from rgsud_lib.training.candidates import SOURCES, Candidates
from rgsud_lib.training.recycling import Recycler

NETWORK = torch.nn.Conv2d(3, 3, 3, padding=1)


def recycler(tmp_path, sizes: dict[str, tuple[int, int]], **reward) -> tuple[Recycler, list[tuple[int, ...]]]:
    shades = zip(sizes.items(), range(100, 250, 20), strict=False)
    images = {name: np.full((*size, 3), shade, np.uint8) for (name, size), shade in shades}
    batches: list[tuple[int, ...]] = []

    def derain(rainy: torch.Tensor) -> torch.Tensor:
        batches.append(tuple(rainy.shape))
        return (rainy * 0.9 + 0 * NETWORK(rainy)).detach()

    scorer = RainLayer()
    pool = RewardPool(tmp_path, scorer.name, scorer.version)
    made = Recycler(
        RewardConfig(**reward),
        {name: image[..., 0].size for name, image in images.items()},
        images.__getitem__,
        scorer,
        pool,
        0,
        derain,
        derain,
    )
    batches.clear()  # the rehearsal's
    return made, batches


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


def test_rounds_keep_to_the_budget_and_use_it(tmp_path):
    made, _ = recycler(tmp_path, {"a": (40, 40), "b": (40, 80), "c": (80, 80)}, budget=0.2)
    used, training = 0.0, 0.0
    for _ in range(40):
        training += 3e6
        used += sum(made.budget.cost(made.load(name)[..., 0].size) for name in made.due(training))
        assert used <= 0.2 * (training + used) * (1 + 1e-9)
    assert used > 0.19 * (training + used)


def test_the_same_rounds_after_a_resume(tmp_path):
    sizes = {name: (24, 24 + 8 * number) for number, name in enumerate("abcd")}
    whole, resumed = recycler(tmp_path, sizes)[0], recycler(tmp_path, sizes)[0]
    rounds = [list(whole.due(flops)) for flops in (1e8, 2e8, 3e8, 4e8)]
    list(resumed.due(2e8))
    again = recycler(tmp_path, sizes)[0]
    again.restore(resumed.state())
    assert [list(again.due(flops)) for flops in (3e8, 4e8)] == rounds[2:]
    assert [list(resumed.due(flops)) for flops in (3e8, 4e8)] == rounds[2:]
    assert all(rounds)


def test_cost_grows_with_what_is_done(tmp_path):
    sizes = {"a": (32, 32)}
    plain, mirror, rotations, both = (
        recycler(tmp_path, sizes, candidates=names)[0].budget.per_pixel
        for names in (("plain",), ("mirror",), ("rotations",), ("plain", "mirror"))
    )
    assert mirror == pytest.approx(2 * plain, rel=0.01) and rotations == pytest.approx(8 * plain, rel=0.01)
    assert both == mirror  # the plain output is made once


def test_flops_are_those_of_the_arithmetic():
    image = torch.zeros(1, 3, 10, 10)
    assert count_flops(lambda: NETWORK(image)) == 2 * 9 * 3 * 3 * 100
    budget = Budget(0.5, lambda side: NETWORK(torch.zeros(1, 3, side, side)))
    assert budget.cost(100) == SLOWER * 2 * 9 * 3 * 3 * 100 and budget.allowance(7.0) == 7.0


def candidates(rainy: torch.Tensor, rewards=(None,), scorer=None) -> Candidates:
    def derain(images):
        return NETWORK(images).detach().sigmoid()

    return Candidates(rainy, rewards, derain, lambda images: images / 2, scorer or RainLayer())


def test_averages_follow_the_image_when_it_is_turned():
    rainy = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    for source, turn in (
        ("mirror", lambda images: images.flip(-1)),
        ("flips", lambda images: images.flip(-2)),
        ("rotations", lambda images: images.rot90(1, (-2, -1))),
    ):
        made, of_turned = SOURCES[source](candidates(rainy)), SOURCES[source](candidates(turn(rainy)))
        torch.testing.assert_close(turn(made), of_turned)
        assert not torch.allclose(turn(SOURCES["plain"](candidates(rainy))), SOURCES["plain"](candidates(turn(rainy))))


def test_raw_and_blend():
    rainy, reward = torch.rand(2, 3, 16, 16), torch.rand(1, 3, 16, 16)
    made = candidates(rainy, (None, reward))
    plain = made.plain()
    assert torch.equal(SOURCES["raw"](made), rainy / 2)
    torch.testing.assert_close(SOURCES["blend"](made), torch.cat([plain[:1], (plain[1:] + reward) / 2]))


def test_tiles_take_each_place_from_where_it_is_better():
    clean = torch.full((1, 3, 64, 160), 0.4)
    rainy = draw_rain(clean, 3)
    left = torch.cat([clean[..., :80], rainy[..., 80:]], dim=-1)  # derained on the left only
    right = torch.cat([rainy[..., :80], clean[..., 80:]], dim=-1)
    made = Candidates(rainy, (right,), lambda _: left, lambda _: left, RainLayer())
    error = [(image - clean).square().mean() for image in (left, right, SOURCES["tiles"](made))]
    assert error[2] < 0.5 * min(error[:2])
    with pytest.raises(ConfigError, match="decorrelation.*no map"):
        SOURCES["tiles"](Candidates(rainy, (right,), lambda _: left, lambda _: left, Decorrelation()))


def test_the_guard_keeps_a_blurred_high_score_out(tmp_path):
    generator = torch.Generator().manual_seed(2)
    scene = torch.rand(1, 3, 64, 64, generator=generator)
    rainy = draw_rain(scene, 5)
    image = (rainy[0].permute(1, 2, 0) * 255).round().byte().numpy()
    outputs = [scene, torch.nn.functional.avg_pool2d(rainy, 5, 1, 2)]

    class Smoothness:
        name, version, higher_is_better = "smoothness", "0", True

        def __call__(self, output, rainy):
            return -(output[..., 1:] - output[..., :-1]).abs().mean(dim=(1, 2, 3))

    for strength, kept, refused in ((1.0, 0, 0.5), (0.0, 1, 0.0)):
        pool = RewardPool(tmp_path / str(strength), "smoothness", "0")
        made = Recycler(
            RewardConfig(guard=strength), {"a": 4096}, {"a": image}.__getitem__, Smoothness(), pool, 0,
            lambda images: images, lambda images: images,
        )  # fmt: skip
        for output in outputs:
            made.derain = lambda _, output=output: output
            made.recycle_all(step=1)
        assert float((to_tensor(pool.image("a")) - outputs[kept]).abs().max()) <= 0.5 / 255 + 1e-6
        assert pool.statistics()["pool/refused_rate"] == refused
