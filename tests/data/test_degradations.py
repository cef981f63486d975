"""What every degradation keeps to, and haze's own law."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from rgsud_lib.config import load_config
from rgsud_lib.config.images import DegradationName
from rgsud_lib.data.degradations import DEGRADATIONS
from rgsud_lib.data.haze import DARKEST, TINT, draw_haze
from rgsud_lib.stages import STAGES

NAMES = list(DEGRADATIONS)
CLEAN = torch.rand(4, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def test_the_configuration_knows_them_all_and_every_stage_that_draws_depends_on_the_choice():
    assert set(get_args(DegradationName)) == set(DEGRADATIONS)
    rain, haze = load_config("demo"), load_config("demo", ["degradation.name=haze"])
    for stage in ("prepare", "recycle", "reinforce", "evaluate"):
        assert rain.digest(*STAGES[stage][1]) != haze.digest(*STAGES[stage][1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (5, 131), (1, 1)])
def test_any_size_keeps_the_image_contract(name, size):
    for drawn in (
        DEGRADATIONS[name].draw(torch.rand(2, 3, *size), 1),
        DEGRADATIONS[name].vary(torch.rand(2, 3, *size), np.random.default_rng(1)),
    ):
        assert drawn.shape == (2, 3, *size) and drawn.dtype == torch.float32
        assert drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same_and_another_does_not(name):
    draw, vary = DEGRADATIONS[name].draw, DEGRADATIONS[name].vary
    assert torch.equal(draw(CLEAN, (3, 5)), draw(CLEAN, (3, 5)))
    assert not torch.equal(draw(CLEAN, (3, 5)), draw(CLEAN, (3, 6)))
    assert torch.equal(*(vary(CLEAN, np.random.default_rng(2)) for _ in range(2)))
    same = CLEAN[:1].expand(2, -1, -1, -1)
    assert not torch.equal(*draw(same, 4))


@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_a_batch_gets_what_it_gets_in_the_whole(name):
    draw, part = DEGRADATIONS[name].draw, slice(1, 3)
    torch.testing.assert_close(draw(CLEAN[part], (3, 7), count=4, part=part), draw(CLEAN, (3, 7))[part])


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_changes_nothing_and_more_changes_more(name):
    draw = DEGRADATIONS[name].draw
    torch.testing.assert_close(draw(CLEAN, 5, 0.0), CLEAN)
    weak, strong = ((draw(CLEAN, 5, strength) - CLEAN).abs().mean() for strength in (0.5, 1.0))
    assert 0 < weak < strong


def test_haze_lies_between_the_scene_and_a_pale_airlight_and_dims_both_alike():
    black, white = (draw_haze(torch.full((8, 3, 32, 32), level), 3) for level in (0.0, 1.0))
    transmission = (white - black).mean(1, keepdim=True)
    assert transmission.min() > 0 and transmission.max() < 1
    torch.testing.assert_close(white - black, transmission.expand(-1, 3, -1, -1))
    airlight = black / (1 - transmission)
    assert airlight.min() > DARKEST - TINT - 1e-3
    torch.testing.assert_close(airlight, airlight[..., :1, :1].expand_as(airlight), atol=1e-4, rtol=0)
