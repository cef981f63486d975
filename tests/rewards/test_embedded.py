"""The embedded rewards prefer what they should."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.config import Config
from rgsud_lib.data.rain import draw_rain
from rgsud_lib.errors import ConfigError
from rgsud_lib.rewards import build_scorer


@pytest.fixture(params=["decorrelation", "rain_layer"])
def scorer(request):
    return build_scorer(request.param, Config(), [])


@pytest.fixture
def scene() -> torch.Tensor:
    """A smooth random scene with edges, 1 x 3 x 96 x 96."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bicubic").clamp(0, 0.8)


def test_removing_the_rain_beats_removing_half_of_it_and_removing_detail(scorer, scene):
    rainy = draw_rain(scene, 3)
    blurred = torch.nn.functional.avg_pool2d(rainy, 5, stride=1, padding=2)
    perfect, half, smooth = (float(scorer(output, rainy)) for output in (scene, (scene + rainy) / 2, blurred))
    assert perfect > half
    assert perfect > smooth


def test_removing_nothing_is_worse_than_removing_half(scorer, scene):
    rainy = draw_rain(scene, 3)
    half = float(scorer((scene + rainy) / 2, rainy))
    assert float(scorer(rainy, rainy)) < half
    assert float(scorer((rainy + 0.001).clamp(0, 1), rainy)) < half


def test_rain_layer_cannot_be_pleased_by_removing_next_to_nothing(scene):
    """The way to cheat decorrelation: random specks are unlike any scene."""
    rainy = draw_rain(scene, 3)
    specks = (rainy - 0.02 * (torch.rand(rainy.shape[-2:], generator=torch.Generator().manual_seed(0)) > 0.9)).clamp(
        0, 1
    )
    half = (scene + rainy) / 2
    decorrelation, rain_layer = build_scorer("decorrelation", Config(), []), build_scorer("rain_layer", Config(), [])
    assert float(decorrelation(specks, rainy)) > float(decorrelation(half, rainy))
    assert float(rain_layer(specks, rainy)) < float(rain_layer(half, rainy))


def test_rain_layer_charges_for_darkening_and_colour(scene):
    rainy = draw_rain(scene, 3)
    scorer = build_scorer("rain_layer", Config(), [])
    tint = torch.tensor([0.05, 0.0, -0.05]).view(1, 3, 1, 1)
    assert float(scorer((scene + tint).clamp(0, 1), rainy)) < float(scorer(scene, rainy))


def test_a_batch_scores_as_its_images_one_by_one(scorer, scene):
    rainy = torch.cat([draw_rain(scene, seed) for seed in range(3)])
    outputs = scene.expand(3, -1, -1, -1)
    together = scorer(outputs, rainy)
    assert torch.equal(together, torch.cat([scorer(outputs[i : i + 1], rainy[i : i + 1]) for i in range(3)]))


def test_constant_images_have_a_finite_score(scorer):
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert torch.isfinite(scorer(flat, torch.zeros_like(flat))).all()


def test_images_out_of_range_are_refused(scorer, scene):
    with pytest.raises(ValueError, match=r"spans .* clamp or divide by 255"):
        scorer(scene * 255, scene)


def test_unknown_scorer_names_the_nearest_and_lists_all():
    with pytest.raises(ConfigError, match=r"'niqqe'; did you mean 'niqe'\? known: clip_iqa, critic"):
        build_scorer("niqqe", Config(), [])
