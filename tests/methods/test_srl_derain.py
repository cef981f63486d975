"""SRL-Derain on a drawn scene, with few and small agents."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.config.methods import SrlDerainConfig
from rgsud_lib.data.rain_models import add_streaks
from rgsud_lib.methods.rain_mask import RainMask, find_rain
from rgsud_lib.methods.srl_derain import (
    ACTIONS,
    NOTHING,
    STEP,
    Agents,
    chosen,
    derain_one,
    dry_mean,
    outcomes,
    pseudo_derained,
    rained,
)

from .test_rain_mask import RAIN, scene  # noqa: F401 (a fixture)

SMALL = SrlDerainConfig(episodes=40, width=8, crop=48, batch=2)


@pytest.fixture(scope="module")
def rainy(scene):  # noqa: F811
    return add_streaks(scene, 1, RAIN)


def psnr(output: torch.Tensor, target: torch.Tensor) -> float:
    return (-10 * (output - target).square().mean().log10()).item()


def test_it_derains_and_the_agents_learn(rainy, scene):  # noqa: F811
    shares: list[float] = []
    output = derain_one(rainy, SMALL, advance=shares.append)
    assert output.shape == rainy.shape and output.min() >= 0 and output.max() <= 1
    assert len(shares) == SMALL.episodes and sum(shares) == pytest.approx(1)
    blank = derain_one(rainy, SMALL.model_copy(update={"episodes": 1}))
    assert psnr(output, scene) > psnr(blank, scene) + 0.3
    assert psnr(output, scene) > psnr(rainy, scene) + 3
    untouched = ~find_rain(rainy).where.expand_as(rainy)
    assert torch.equal(output[untouched], rainy[untouched])


def test_a_seed_is_a_result_and_leaves_no_trace(rainy):
    brief = SMALL.model_copy(update={"episodes": 2})
    before = torch.random.get_rng_state()
    first, again, other = (derain_one(rainy, brief, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_image_without_rain_comes_back_as_it_is(scene):  # noqa: F811
    told: list[float] = []
    output = derain_one(scene, advance=told.append)
    assert torch.equal(output, scene) and output is not scene
    assert sum(told) == 1


def test_images_that_are_none_are_refused(rainy):
    with pytest.raises(ValueError, match="expected one image"):
        derain_one(torch.cat([rainy, rainy]))
    with pytest.raises(ValueError, match=r"spans .* expected finite values in \[0,1\]"):
        derain_one(rainy * 255)


def test_actions_take_grey_light_only(rainy):
    mask = find_rain(rainy)
    made = outcomes(rainy, mask.where, mask.angle)
    assert made.shape == (1, ACTIONS, *rainy.shape[1:])
    assert torch.equal(made[:, NOTHING], rainy)
    change = rainy[:, None] - made
    inside = (made.amin(2) > 0) & (made.amax(2) < 1)
    spread = change.amax(2) - change.amin(2)
    assert spread[inside].max() < 1e-6
    assert (change[:, :NOTHING] >= 0).all()
    bright = change[:, NOTHING + 1 :][inside[:, NOTHING + 1 :][:, :, None].expand_as(change[:, NOTHING + 1 :])]
    torch.testing.assert_close(bright.abs(), torch.full_like(bright, STEP), rtol=0, atol=1e-6)


def test_only_pixels_of_the_mask_act():
    made = torch.stack([torch.full((1, 3, 4, 4), float(action)) for action in range(ACTIONS)], dim=1)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 0] = True
    following = chosen(made, torch.full((1, 4, 4), 2), mask)
    assert (following[..., 0] == 2).all() and (following[..., 1:] == NOTHING).all()


def test_the_dry_mean_sees_dry_pixels_only():
    image = torch.full((1, 3, 9, 9), 0.2)
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[..., 4] = True
    image[..., 4] = 0.9
    torch.testing.assert_close(dry_mean(image, mask, 2), torch.full_like(image, 0.2))
    assert torch.equal(dry_mean(image, torch.ones_like(mask), 2), image)
    torch.testing.assert_close(pseudo_derained(image, RainMask(mask, 0)), torch.full_like(image, 0.2))


def test_where_the_rain_falls_elsewhere_the_truth_is_known(rainy):
    mask = find_rain(rainy)
    reference = pseudo_derained(rainy, mask)
    crops = rained(rainy, reference, mask.where, 48, torch.Generator().manual_seed(0))
    assert crops.rainy.shape == (1, 3, 48, 48) and crops.known.shape == (1, 1, 48, 48) and crops.known.any()
    assert (crops.known <= crops.mask).all()
    assert (crops.rainy - crops.goal)[~crops.mask.expand_as(crops.goal)].abs().max() == 0
    assert (crops.rainy >= crops.goal).all() and (crops.rainy > crops.goal)[crops.known.expand_as(crops.goal)].any()


def test_fresh_agents_prefer_nothing():
    logits, value = Agents(4)(torch.rand(2, 3, 19, 33), torch.ones(2, 1, 19, 33, dtype=torch.bool))
    assert logits.shape == (2, ACTIONS, 19, 33) and value.shape == (2, 1, 19, 33)
    assert not logits.any() and not value.any()
