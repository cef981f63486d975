"""Where a single photograph has rain, without any training (ours; SRL-Derain has a learnt dictionary here).

A streak is brighter than what lies on both of its sides, by the same light in all channels (`excess`), along a line
of the rain's direction and of no other (`line_mean`). Scenery has such lines too, but dark ones as often as bright
ones, and rain only adds light. So the dark lines, found in the negative, say how many of the bright ones are scenery,
and the threshold is where that share falls below `max_scenery`. And rain falls everywhere: a mask that leaves parts
of the image out shows fences or reeds. Where either test fails, the mask is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rgsud_lib.data.rain import streak

REACHES = 2, 3, 5  # pixels from a streak's middle to what it is compared with
LENGTH = 15.0  # pixels over which a streak is followed
ANGLES = (*range(-60, 61, 15), 90)  # degrees from the vertical that are looked at
STEEP = 45  # rain falls within this of the vertical
APART = 30  # degrees from which on another direction speaks for scenery
PART = 56  # pixels, about, of a part of the image
EVEN = 0.25  # the emptiest tenth of the parts must have this much of the mean share of rain
THRESHOLDS = torch.logspace(-2, math.log10(0.2), 14)


@dataclass(frozen=True)
class RainMask:
    """`where`, 1 x 1 x H x W booleans, and the rain's `angle` in degrees from the vertical."""

    where: Tensor
    angle: int


def find_rain(image: Tensor, max_scenery: float = 0.5) -> RainMask:
    """The rain of an image, 1 x 3 x H x W in [0,1]."""
    scores = {angle: line_mean(excess(image, angle), angle) for angle in ANGLES}
    falling = (angle for angle in ANGLES if abs(angle) <= STEEP)
    angle = max(falling, key=lambda angle: scores[angle].square().mean().item())
    bright = _alone(scores, angle)
    negative = {other: line_mean(excess(1 - image, other), other) for other in _rivals(angle) | {angle}}
    dark = _alone(negative, angle)
    for threshold in THRESHOLDS:
        found = bright > threshold
        if (dark > threshold).sum() < max_scenery * found.sum():
            break
    else:
        found = torch.zeros_like(found)
    grown = F.max_pool2d(found.float(), 3, stride=1, padding=1) > 0
    return RainMask(grown & _everywhere(found), angle)


def excess(image: Tensor, angle: float) -> Tensor:
    """B x 1 x H x W: the grey light by which a pixel exceeds both sides of a streak through it, at the best reach."""
    return torch.stack([taken(image, across(image, angle, reach)) for reach in REACHES]).amax(0)


def across(image: Tensor, angle: float, reach: float) -> Tensor:
    """The brighter of what lies `reach` pixels to either side of a streak of that angle, B x C x H x W."""
    down, right = -reach * math.sin(math.radians(angle)), reach * math.cos(math.radians(angle))
    return torch.maximum(shifted(image, down, right), shifted(image, -down, -right))


def taken(image: Tensor, target: Tensor) -> Tensor:
    """B x 1 x H x W: the light that can be taken from all channels alike without falling below the target's."""
    return (image - target).amin(1, keepdim=True).clamp(min=0)


def line_mean(values: Tensor, angle: float) -> Tensor:
    """Mean of B x 1 x H x W along a line of that angle."""
    line = streak(angle, LENGTH, 0.5).to(values)
    reach = line.shape[-1] // 2
    return F.conv2d(F.pad(values, (reach,) * 4, mode="replicate"), (line / line.sum())[None, None])


def shifted(image: Tensor, down: float, right: float) -> Tensor:
    """B x C x H x W moved by a fraction of pixels, bilinear, edges repeated."""
    height, width = image.shape[-2:]
    reach = math.ceil(max(abs(down), abs(right))) + 1
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    top, left = math.floor(-down), math.floor(-right)
    below, beside = -down - top, -right - left
    rows = torch.lerp(
        padded[..., reach + top : reach + top + height, :],
        padded[..., reach + top + 1 : reach + top + 1 + height, :],
        below,
    )
    return torch.lerp(
        rows[..., reach + left : reach + left + width], rows[..., reach + left + 1 : reach + left + 1 + width], beside
    )


def _everywhere(found: Tensor) -> Tensor:
    """A boolean: whether all parts of the image have some of it."""
    parts = [max(1, round(length / PART)) for length in found.shape[-2:]]
    shares = F.adaptive_avg_pool2d(found.float(), parts)
    return shares.quantile(0.1) > EVEN * shares.mean()


def _rivals(angle: int) -> set[int]:
    return {other for other in ANGLES if abs(other - angle) >= APART}


def _alone(scores: dict[int, Tensor], angle: int) -> Tensor:
    """The score of a direction, less the best one of any direction that is not near it."""
    return scores[angle] - torch.stack([scores[other] for other in sorted(_rivals(angle))]).amax(0)
