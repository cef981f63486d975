"""Drawn haze: atmospheric scattering over a smooth depth (Koschmieder 1924; Narasimhan and Nayar, IJCV 2002).

I = J t + A (1 - t) with t = exp(-beta d): what a scene J at depth d sends is dimmed, and the airlight A is added.
Deterministic in the seed, any image size. Depths are drawn (`draw_depth`), not those of the scene.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rgsud_lib.data.rain_models import draw_depth

THINNEST, DENSEST = 0.3, 1.5  # extinction beta for a unit of depth
DARKEST, TINT = 0.65, 0.03  # the airlight's least grey, and how far its channels lie from grey at most


def draw_haze(
    clean: Tensor,
    seed: tuple[int, ...] | int,
    strength: float = 1.0,
    count: int | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Clean B x 3 x H x W in [0,1] to hazy images of the same shape, each with its own haze; `strength` scales beta.

    Where `clean` is only a `part` of `count` images, they get the haze that they would get within the whole.
    """
    whole = len(clean) if count is None else count
    seeds = seed if isinstance(seed, tuple) else (seed,)
    rng = np.random.default_rng(seeds)
    beta = np.exp(rng.uniform(math.log(THINNEST), math.log(DENSEST), (whole, 1, 1, 1)))
    airlight = rng.uniform(DARKEST, 1, (whole, 1, 1, 1)) + rng.uniform(-TINT, TINT, (whole, 3, 1, 1))
    beta, airlight = (torch.from_numpy(value[part]).to(clean) for value in (strength * beta, airlight.clip(0, 1)))
    depth = draw_depth(whole, clean.shape[2], clean.shape[3], seed)[part].to(clean)
    return torch.lerp(airlight, clean, torch.exp(-beta * depth)).clamp(0, 1)


def vary_haze(clean: Tensor, rng: np.random.Generator) -> Tensor:
    """Haze of more kinds: thinner and denser than `draw_haze` alone."""
    strength = float(rng.uniform(0.5, 1.5))
    return draw_haze(clean, int(rng.integers(2**31)), strength)
