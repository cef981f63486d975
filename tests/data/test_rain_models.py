"""Rain models: deterministic, any size, and each parameter does what its name says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rgsud_lib.data.rain_models import (
    HEAVY,
    LIGHT,
    Streaks,
    add_heavy_rain,
    add_streaks,
    draw_depth,
    linear,
    screen,
    streak_layers,
)
from rgsud_lib.errors import ConfigError

ONE = {"spread": 0.0, "depths": 1, "density": 0.0005}


def drawn(**changes: float) -> Tensor:
    return streak_layers(1, 256, 256, 7, (Streaks(**{**ONE, **changes}),))


def direction(layer: Tensor) -> float:
    """Degrees from the vertical along which the light changes least: from the structure tensor."""
    down, across = torch.gradient(layer[0, 0])
    a, b, c = (float((first * second).sum()) for first, second in ((down, down), (down, across), (across, across)))
    return -math.degrees(0.5 * math.atan2(2 * b, c - a))


@pytest.mark.parametrize("model", [add_streaks, add_heavy_rain])
@pytest.mark.parametrize("size", [(64, 64), (5, 131), (1, 1)])
def test_any_size_keeps_the_image_contract(model, size: tuple[int, int]) -> None:
    rainy = model(torch.rand(2, 3, *size), 1)
    assert rainy.shape == (2, 3, *size) and rainy.dtype == torch.float32
    assert rainy.min() >= 0 and rainy.max() <= 1


@pytest.mark.parametrize("model", [add_streaks, add_heavy_rain])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(model) -> None:
    clean = torch.rand(2, 3, 40, 56)
    assert torch.equal(model(clean, (3, 5)), model(clean, (3, 5)))
    assert not torch.equal(model(clean, (3, 5)), model(clean, (3, 6)))


def test_each_image_has_its_own_rain_whatever_the_batch() -> None:
    three = streak_layers(3, 64, 64, 4)
    assert not torch.equal(three[0], three[1])
    assert torch.equal(streak_layers(2, 64, 64, 4), three[:2])


def test_compositions() -> None:
    clean, rain = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)
    assert torch.equal(linear(clean, rain), (clean + rain).clamp(max=1))
    torch.testing.assert_close(1 - screen(clean, rain), (1 - clean) * (1 - rain))
    assert (screen(clean, rain) <= linear(clean, rain) + 1e-6).all()
    layer = streak_layers(1, 8, 8, 3, HEAVY)
    assert torch.equal(add_streaks(clean, 3, HEAVY, screen), screen(clean, layer))


@pytest.mark.parametrize("angle", [-60.0, -30.0, 0.0, 15.0, 45.0])
def test_streaks_fall_along_the_angle(angle: float) -> None:
    assert direction(drawn(angle=angle, length=30.0, width=1.5)) == pytest.approx(angle, abs=2)


def test_density_is_streaks_a_pixel_and_length_makes_them_longer() -> None:
    light = {density: float(drawn(density=density).sum()) for density in (0.0, 0.0002, 0.0008)}
    assert light[0.0] == 0
    assert light[0.0008] == pytest.approx(4 * light[0.0002], rel=0.5)
    single = Streaks(**{**ONE, "angle": 0.0, "density": 1e-4})
    layer = streak_layers(1, 400, 400, 3, (single,))[0, 0]
    lit = (layer > 0.05).sum(0)
    assert 20 <= int(lit.max()) <= 29  # 20 px, a quarter more at most, and soft ends
    assert float(drawn(length=40.0).sum()) > 1.5 * float(drawn(length=20.0).sum())


def test_defocus_spreads_a_streak_and_keeps_its_light() -> None:
    sharp, soft = drawn(width=1.0), drawn(width=1.0, defocus=3.0)
    assert float(soft.max()) < 0.5 * float(sharp.max())
    assert (soft > 0.01).sum() > 2 * (sharp > 0.01).sum()
    assert float(soft.sum()) == pytest.approx(float(sharp.sum()), rel=0.25)


def test_far_drops_are_smaller_and_many() -> None:
    near, far = drawn(depths=1, length=30.0), drawn(depths=4, length=30.0)
    assert float(far.sum()) < 0.5 * float(near.sum())  # as many drops in all, most of them far
    assert float(far.max()) > 0


def test_veil_greys_the_far_scene_and_hides_its_rain() -> None:
    clean = torch.zeros(1, 3, 96, 96)
    depth = torch.linspace(0, 9, 96).view(1, 1, 1, 96).expand(1, 1, 96, 96)
    veiled = add_heavy_rain(clean, 2, veil=1.0, airlight=0.6, depth=depth)
    torch.testing.assert_close(veiled[..., :1], add_streaks(clean, 2, HEAVY)[..., :1], atol=1e-6, rtol=0)
    assert (veiled[..., -8:] - 0.6).abs().max() < 0.01
    assert torch.equal(add_heavy_rain(clean, 2, veil=0.0), add_streaks(clean, 2, HEAVY))


def test_drawn_depth_is_smooth_and_grows_upwards() -> None:
    depth = draw_depth(2, 64, 80, 5)
    assert depth.shape == (2, 1, 64, 80) and depth.min() >= 0.5 and depth.max() <= 1.5
    assert depth[:, :, 0].mean() > depth[:, :, -1].mean()
    assert torch.diff(depth, dim=2).abs().max() < 0.1
    assert not torch.equal(depth[0], depth[1])


@pytest.mark.parametrize("wrong", [{"angle": 90.0}, {"density": -1.0}, {"depths": 0}, {"brightness": float("nan")}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"rain {next(iter(wrong))}=.*; expected a value from"):
        Streaks(**wrong)


def test_veil_out_of_range_and_depth_of_another_shape() -> None:
    clean = torch.rand(1, 3, 8, 8)
    with pytest.raises(ConfigError, match="airlight=1.5; expected"):
        add_heavy_rain(clean, 0, airlight=1.5)
    with pytest.raises(ConfigError, match=r"depth has shape \(8, 8\); expected \(1, 1, 8, 8\)"):
        add_heavy_rain(clean, 0, LIGHT, depth=torch.ones(8, 8))
