"""PIQE: how much of an image's active area is distorted; nothing is trained and no reference is needed.

Venkatanath, Praneeth, Bh, Channappayya, Medasani, "Blind image quality evaluation using perception based
features", NCC 2015. Written from the paper; where it is silent, as MATLAB's piqe: sides that are no multiple
of 16 are continued with their last pixel, and of the sixteen columns the surround leaves out 8 and 10.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rgsud_lib.config import digest_of
from rgsud_lib.data.images import check_images
from rgsud_lib.rewards.niqe import luma, normalise, split_patches

BLOCK, SEGMENT = 16, 6
ACTIVE = 0.1  # a block of normalised coefficients counts from this variance on
IMPAIRED = 0.1  # an edge segment of less deviation than this is a noticeable distortion
CENTRE = [7, 8]
SURROUND = [column for column in range(BLOCK) if column not in (7, 9)]


class Piqe:
    """Scorer: minus PIQE, so higher is better: near 0 without distortions, -100 for a flat image."""

    name = "piqe"
    higher_is_better = False

    def __init__(self) -> None:
        settings = {"block": BLOCK, "segment": SEGMENT, "active": ACTIVE, "impaired": IMPAIRED, "surround": SURROUND}
        self.version = digest_of({"name": self.name, "revision": 1, **settings})

    def __call__(self, output: Tensor, rainy: Tensor | None = None) -> Tensor:
        """Minus PIQE of each image of `output`, B x 3 x H x W in [0,1] of any size; `rainy` is not looked at.

        Raises TypeError or ValueError on bad images.
        """
        check_images(output, "output")
        return torch.tensor([-distortion(luma(image)) for image in output.detach().cpu()], dtype=torch.float32)


def distortion(plane: Tensor) -> float:
    """PIQE, about 0 to 100, of a luma plane H x W in 0..255: mean distortion of the active blocks."""
    height, width = plane.shape
    padded = F.pad(plane[None, None], (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")[0, 0]
    blocks = split_patches(normalise(padded)[0], BLOCK)
    variance = blocks.var((1, 2))
    active = variance > ACTIVE
    if not active.any():
        return 100.0
    blocks, variance = blocks[active], variance[active]
    amount = torch.where(has_noticeable_distortion(blocks), 1 - variance, 0.0)
    amount = amount + torch.where(is_noisy(blocks, variance), variance, 0.0)
    return float(100 * (amount.sum() + 1) / (len(blocks) + 1))


def has_noticeable_distortion(blocks: Tensor) -> Tensor:
    """N x 16 x 16 to N: a segment of six pixels on one of the four edges is nearly constant."""
    edges = torch.stack([blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]], dim=1)
    return (edges.unfold(2, SEGMENT, 1).std(-1) < IMPAIRED).flatten(1).any(1)


def is_noisy(blocks: Tensor, variance: Tensor) -> Tensor:
    """N x 16 x 16 and N to N: a block's centre deviates from its surround as much as noise does."""
    deviation = variance.sqrt()
    ratio = (blocks[:, :, CENTRE].std((1, 2)) / blocks[:, :, SURROUND].std((1, 2))).nan_to_num(0.0, posinf=torch.inf)
    return deviation > 2 * (deviation - ratio).abs() / torch.maximum(deviation, ratio)
