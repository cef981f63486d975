"""The fidelity guard (ours): a candidate must keep its rainy input where there is no rain.

Where the removed light is positive and alike in all channels there was rain, as far as the candidate
claims; everywhere else input and output show the same scene. There the guard measures

- colour: the largest mean change of a channel; over the whole image also of any channel against grey,
  and the light that was taken away nearly everywhere (its 5 % quantile: rain leaves gaps);
- detail: the output's share of the input's high-pass energy (over-smoothing leaves too little);
- structure: the correlation of both high-passes (invented detail does not follow the input's).

Closeness as such is not asked for, as that would reward leaving the rain in: taking away more rain only
makes the compared area smaller. The guard is for rain that leaves part of an image dry; in rain as dense
as Rain100H's even the truth drifts too far, so it is off unless asked for. The limits at strength 1 were
set so that Rain100L's true clean images pass (`benchmarks/guard.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rgsud_lib.data.images import check_images
from rgsud_lib.networks.layers import low_pass

RAIN = 2.5 / 255  # more removed light than this counts as rain
COLOUR, DETAIL, STRUCTURE = 0.009, 0.8, 0.9


@dataclass(frozen=True)
class Guard:
    """`guard(output, rainy)` is True where an output may become a reward; a higher strength refuses more."""

    strength: float = 1.0

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor:
        """Output and rainy B x 3 x H x W in [0,1] to B booleans on the CPU."""
        colour, detail, structure = measures(output, rainy)
        return (
            (colour <= COLOUR / self.strength)
            & (detail >= 1 - (1 - DETAIL) / self.strength)
            & (structure >= 1 - (1 - STRUCTURE) / self.strength)
        )


def measures(output: Tensor, rainy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour drift (0 is none), kept detail (1 is all) and structure (1 is the same), B each, on the CPU."""
    output, rainy = check_images(output, "output").float(), check_images(rainy, "rainy").float()
    removed = rainy - output
    grey = removed.mean(1, keepdim=True)
    dry = (F.max_pool2d(grey, 3, stride=1, padding=1) <= RAIN).float()
    area = dry.sum(dim=(2, 3)).clamp(min=1)
    drift = ((removed * dry).sum(dim=(2, 3)) / area).abs().amax(1)
    cast = (removed - grey).mean(dim=(2, 3)).abs().amax(1)
    everywhere = grey.flatten(1).kthvalue(max(1, grey[0].numel() // 20), dim=1).values  # rain leaves gaps
    before, after = (_detail(images) * dry for images in (rainy, output))
    energy = before.square().sum(dim=(1, 2, 3)).clamp(min=1e-12)
    kept = after.square().sum(dim=(1, 2, 3))
    structure = (before * after).sum(dim=(1, 2, 3)) / (energy * kept.clamp(min=1e-12)).sqrt()
    empty = energy <= 1e-9  # nothing there that could have been lost
    detail = torch.where(empty, 1.0, kept / energy)
    colour = torch.stack([drift, cast, everywhere]).amax(0)
    return colour.cpu(), detail.cpu(), torch.where(empty, 1.0, structure).cpu()


def _detail(images: Tensor) -> Tensor:
    luma = images.mean(1, keepdim=True)
    return luma - low_pass(luma, 7, 1.5)
