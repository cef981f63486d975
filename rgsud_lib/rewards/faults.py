"""Outputs with known errors (ours), for the critic to learn from: what a derainer might return for a rainy image."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from rgsud_lib.data.degradations import Degradation
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.networks.layers import low_pass


@torch.no_grad()
def imperfect(
    clean: Tensor, rainy: Tensor, derainers: Sequence[nn.Module], rng: np.random.Generator, degradation: Degradation
) -> Tensor:
    """What a derainer might return for `rainy`, in 8-bit steps; a negative share of rain means too much removed."""
    count, _, side, _ = clean.shape
    base = derainers[rng.integers(len(derainers))](rainy) if rng.random() < 0.75 else clean
    share = (_normal(rng, count, 1) * _amount(rng, count, 0.03, 0.6, chance=1)).clamp(-0.4, 1)
    if rng.random() < 0.5:
        share = share * F.interpolate(torch.rand(count, 1, 3, 3), size=side, mode="bicubic").clamp(0, 1)
    output = base + share * (rainy - base)
    if rng.random() < 0.6:
        output = _spoil(output, clean, rainy, rng, degradation)
    pictures = to_uint8(output)
    if rng.random() < 0.15:
        pictures = np.stack([_compress(picture, quality=int(rng.integers(40, 96))) for picture in pictures])
    return to_tensor(pictures)


def _spoil(output: Tensor, clean: Tensor, rainy: Tensor, rng: np.random.Generator, degradation: Degradation) -> Tensor:
    """Blur, holes or streaks of other rain, noise and a slow tint, each in some images and of random strength."""
    count, _, side, _ = output.shape
    wet = ((rainy - clean).mean(1, keepdim=True) * 8).clamp(0, 1)
    where = torch.where(_uniform(rng, count) < 0.7, wet, 1.0)
    blurred = low_pass(output, 7, float(rng.uniform(0.6, 2)))
    output = output + _amount(rng, count, 0.05, 1, chance=0.35) * where * (blurred - output)
    streaks = degradation.draw(torch.zeros_like(output), int(rng.integers(2**31)))
    sign = torch.where(_uniform(rng, count) < 0.3, 1.0, -1.0)
    output = output + sign * _amount(rng, count, 0.03, 0.3, chance=0.25) * streaks
    output = output + _amount(rng, count, 0.002, 0.03, chance=0.2) * where * torch.randn(output.shape)
    tint = _normal(rng, count, 3) + F.interpolate(torch.randn(count, 3, 2, 2), size=side, mode="bicubic")
    return output + _amount(rng, count, 0.001, 0.03, chance=0.25) * tint


def _compress(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as compressed:
        return np.array(compressed)


def _uniform(rng: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(rng.random((count, 1, 1, 1)).astype(np.float32))


def _normal(rng: np.random.Generator, count: int, channels: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((count, channels, 1, 1)).astype(np.float32))


def _amount(rng: np.random.Generator, count: int, low: float, high: float, chance: float) -> Tensor:
    """Log-uniform strengths B x 1 x 1 x 1, zero but with probability `chance`."""
    strength = math.log(low) + math.log(high / low) * _uniform(rng, count)
    return torch.where(_uniform(rng, count) < chance, strength.exp(), 0.0)
