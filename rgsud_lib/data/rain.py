"""Drawn rain: additive, achromatic streaks in random layers (ours; the additive model is Rain100L's).

A layer is sparse drops convolved with anti-aliased line kernels of one wind angle; lengths and
widths vary within it. Deterministic in the seed, any image size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 16  # pixels from a kernel's centre to its edge
KERNELS = 2  # different streak shapes within a layer


def draw_rain(
    clean: Tensor,
    seed: tuple[int, ...] | int,
    strength: float = 1.0,
    count: int | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Clean B x 3 x H x W in [0,1] to rainy images of the same shape, each with its own rain.

    `strength` scales the streaks' brightness. The same seed draws the same rain on any device. Where `clean` is only
    a `part` of `count` images, they get the rain that they would get within the whole.
    """
    rain = rain_layers(len(clean) if count is None else count, clean.shape[2], clean.shape[3], seed, part)
    return (clean + strength * rain.to(clean.device)).clamp(0, 1)


def vary_rain(clean: Tensor, rng: np.random.Generator) -> Tensor:
    """Rain of more kinds: zoomed, sometimes lying, with softer or harder streaks, fainter or brighter."""
    count, _, height, width = clean.shape
    strength, zoom = float(rng.uniform(0.3, 1.2)), float(rng.uniform(0.6, 1.6))
    layers = rain_layers(count, round(height * zoom), round(width * zoom), int(rng.integers(2**31)))
    rain = F.interpolate(layers, size=(height, width), mode="bilinear")
    rain = (rain.mT if height == width and rng.random() < 0.2 else rain) ** float(rng.uniform(0.6, 1.6))
    return (clean + strength * rain).clamp(0, 1)


def rain_layers(count: int, height: int, width: int, seed: tuple[int, ...] | int, part: slice = slice(None)) -> Tensor:
    """`count` independent rain layers, or of these only `part`, each 1 x height x width, in [0,1]."""
    rng = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    canvas = (count * 2 * KERNELS, height + 2 * REACH, width + 2 * REACH)
    kernels, density, gain = zip(
        *(_layer(rng, present=layer == 0 or rng.random() < 0.5) for _ in range(count) for layer in range(2)),
        strict=True,
    )
    chosen = range(count)[part]
    rows = slice(chosen.start * 2 * KERNELS, chosen.stop * 2 * KERNELS)
    chance = torch.tensor(density, dtype=torch.float32).repeat_interleave(KERNELS)[rows, None, None] / KERNELS
    drops = torch.rand(canvas, generator=noise)[rows]
    drops = torch.where(drops < chance, 0.4 + 0.6 * drops / chance.clamp(min=1e-9), 0.0)
    streaks = F.conv2d(drops[None], torch.cat(kernels)[rows, None], groups=len(drops))[0]
    layers = streaks.view(len(chosen), 2, KERNELS, height, width).sum(2).clamp(0, 1.2)
    gains = torch.tensor(gain, dtype=torch.float32).view(count, 2, 1, 1)[part]
    return (layers * gains).sum(1, keepdim=True).clamp(0, 1)


def _layer(rng: np.random.Generator, present: bool) -> tuple[Tensor, float, float]:
    """Kernels (KERNELS x k x k, peak 1), drops per pixel, and brightness of one layer."""
    angle, length = rng.normal(0, 22), rng.uniform(6, 28)
    sigma = rng.uniform(0.35, 1.35)
    shapes = [
        streak(angle + rng.normal(0, 2), length * rng.uniform(0.75, 1.25), sigma * rng.uniform(0.8, 1.2))
        for _ in range(KERNELS)
    ]
    density = float(np.exp(rng.uniform(math.log(0.0005), math.log(0.01)))) * min(1.0, 12 / length)
    gain = rng.uniform(0.15, 0.85)
    return torch.stack(shapes), density if present else 0.0, gain


def streak(angle: float, length: float, sigma: float) -> Tensor:
    """A soft line through the centre: `angle` degrees from the vertical, `length` and `sigma` in pixels."""
    axis = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, beside = down * cosine + across * sine, across * cosine - down * sine
    ends = torch.sigmoid((length / 2 - along.abs()) / max(1.0, length / 12))
    return torch.exp(-(beside**2) / (2 * sigma**2)) * ends
