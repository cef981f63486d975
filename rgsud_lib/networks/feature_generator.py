"""A generator of rainy images from one image (CycleGAN) or from an image and one that shows rain (CSUD).

A ResNet at full resolution on the features of its images, concatenated: with two of 64 channels, CSUD's 128. What
it adds to the first image starts at zero (ours), so training begins at the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import zero_start
from rgsud_lib.networks.rain_generator import ResidualBlock


class FeatureGenerator(nn.Module):
    """`images` tensors, each B x 3 x H x W, to one of that shape (not clamped); `width` channels for each of them."""

    def __init__(self, images: int, width: int = 64, blocks: int = 6):
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(3, width, 3, padding=1) for _ in range(images))
        self.body = nn.Sequential(*(ResidualBlock(images * width) for _ in range(blocks)))
        self.tail = zero_start(nn.Conv2d(images * width, 3, 3, padding=1))

    def forward(self, *images: Tensor) -> Tensor:
        features = [head(image) for head, image in zip(self.heads, images, strict=True)]
        return images[0] + self.tail(self.body(torch.cat(features, dim=1)))
