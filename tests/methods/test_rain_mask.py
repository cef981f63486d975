"""The rain mask on a drawn scene: it finds the rain, its direction, and nothing where there is none."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.data.rain_models import Streaks, add_streaks, streak_layers
from rgsud_lib.methods.rain_mask import across, excess, find_rain, shifted, taken

RAIN = (Streaks(angle=15.0, spread=1.0, length=24.0, width=0.9, density=0.005, depths=1, brightness=0.5),)


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    """Smooth patches of colour and some texture, 1 x 3 x 120 x 160."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8, generator=generator), (120, 160), mode="bicubic")
    return (0.1 + 0.5 * coarse + 0.06 * torch.rand(1, 3, 120, 160, generator=generator)).clamp(0, 1)


def test_the_rain_is_found_and_its_direction(scene):
    mask = find_rain(add_streaks(scene, 1, RAIN))
    rain = streak_layers(1, 120, 160, 1, RAIN) > 0.1
    assert mask.where.shape == (1, 1, 120, 160) and mask.where.dtype == torch.bool
    assert abs(mask.angle) == 15 and mask.angle == find_rain(add_streaks(scene, 2, RAIN)).angle
    assert (mask.where & rain).sum() > 0.6 * rain.sum()
    assert (mask.where & ~rain).sum() < 0.15 * mask.where.numel()


def test_the_direction_is_that_of_the_model(scene):
    for angle in (-30.0, 0.0, 30.0):
        rain = (Streaks(angle=angle, spread=1.0, length=24.0, width=0.9, density=0.005, depths=1, brightness=0.5),)
        assert find_rain(add_streaks(scene, 1, rain)).angle == angle


def test_scenes_without_rain_have_none(scene):
    assert not find_rain(scene).where.any()
    assert not find_rain(torch.full((1, 3, 40, 40), 0.5)).where.any()


def test_bright_lines_in_one_part_of_the_image_are_no_rain(scene):
    fenced = scene.clone()
    fenced[..., 10:110, 4:60:6] += 0.35
    assert not find_rain(fenced.clamp(0, 1)).where.any()


def test_dark_lines_are_no_rain(scene):
    dark = 1 - add_streaks(1 - scene, 1, RAIN)
    assert not find_rain(dark).where.any()


def test_excess_is_grey_light_above_both_sides():
    image = torch.full((1, 3, 21, 21), 0.2)
    image[..., 10] += torch.tensor([0.3, 0.2, 0.1]).view(1, 3, 1)
    found = excess(image, 0.0)
    torch.testing.assert_close(found[0, 0, :, 10], torch.full((21,), 0.1))
    assert not found[..., :10].any() and not found[..., 11:].any()
    step = torch.zeros(1, 3, 21, 21)
    step[..., 10:] = 0.5  # an edge exceeds one side only
    assert not excess(step, 0.0).any()


def test_shifted_moves_by_fractions_and_repeats_the_edges():
    image = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 4, 6)
    torch.testing.assert_close(shifted(image, 0, 0.5)[0, 0, 0], torch.tensor([0.0, 0.5, 1.5, 2.5, 3.5, 4.5]))
    torch.testing.assert_close(shifted(image, 2, -1)[0, 0, 0], torch.tensor([1.0, 2, 3, 4, 5, 5]))
    column = image.transpose(2, 3)
    torch.testing.assert_close(shifted(column, 2, 0)[0, 0, :, 0], torch.tensor([0.0, 0, 0, 1, 2, 3]))
    torch.testing.assert_close(across(image, 0.0, 1)[0, 0, 0], torch.tensor([1.0, 2, 3, 4, 5, 5]))


def test_what_can_be_taken_is_bounded_by_the_weakest_channel():
    image, target = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.1, 0.3, 0.1]).view(1, 3, 1, 1)
    assert taken(image, target).item() == pytest.approx(0.1)
    assert taken(target, image).item() == 0
