"""Drawn rain: deterministic, additive, achromatic, any size."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.data.rain import draw_rain, rain_layers


def test_the_same_seed_draws_the_same_rain_and_another_does_not():
    clean = torch.rand(2, 3, 40, 56)
    assert torch.equal(draw_rain(clean, (3, 5)), draw_rain(clean, (3, 5)))
    assert not torch.equal(draw_rain(clean, (3, 5)), draw_rain(clean, (3, 6)))


def test_each_image_of_a_batch_has_its_own_rain():
    layers = rain_layers(2, 64, 64, 0)
    assert not torch.equal(layers[0], layers[1])


@pytest.mark.parametrize("size", [(64, 64), (5, 131), (1, 1)])
def test_rain_only_adds_light_to_all_channels_alike(size):
    rainy = draw_rain(torch.zeros(1, 3, *size), 1)
    assert rainy.shape == (1, 3, *size)
    assert rainy.min() >= 0 and rainy.max() <= 1
    assert torch.equal(rainy[:, 0], rainy[:, 1]) and torch.equal(rainy[:, 1], rainy[:, 2])


def test_rain_is_of_varied_strength():
    covered = torch.stack([rain_layers(1, 128, 128, seed).mean() for seed in range(20)])
    assert covered.min() > 0
    assert covered.max() > 5 * covered.min()


def test_strength_scales_the_rain():
    dark = torch.zeros(1, 3, 64, 64)
    torch.testing.assert_close(draw_rain(dark, 2, strength=0.5), 0.5 * draw_rain(dark, 2))


def test_a_part_of_a_batch_has_the_rain_that_it_has_in_the_whole():
    whole = rain_layers(4, 40, 48, (3, 7))
    for part in (slice(0, 2), slice(2, 4), slice(3, 4)):
        torch.testing.assert_close(rain_layers(4, 40, 48, (3, 7), part), whole[part])
