"""NAFNet, the derainer (Chen et al., ECCV 2022, arXiv 2204.04676).

Parameter names are those of the published checkpoints. Any image size goes in. The last layer
starts at zero, so an untrained network returns its input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import LayerNorm2d, pad_to_multiple, zero_start


def simple_gate(features: Tensor) -> Tensor:
    first, second = features.chunk(2, dim=1)
    return first * second


class NAFBlock(nn.Module):
    """Depthwise convolution with simple gate and channel attention, then a gated feed-forward (paper, figure 3e)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        mixed = simple_gate(self.conv2(self.conv1(self.norm1(features))))
        features = features + self.beta * self.conv3(mixed * self.sca(mixed))
        return features + self.gamma * self.conv5(simple_gate(self.conv4(self.norm2(features))))


class NAFNet(nn.Module):
    """B x 3 x H x W in [0,1] to the restored image of the same size (not clamped)."""

    def __init__(
        self,
        width: int = 32,
        encoder: Sequence[int] = (2, 2, 4, 8),
        middle: int = 12,
        decoder: Sequence[int] = (2, 2, 2, 2),
    ):
        super().__init__()
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.ending = zero_start(nn.Conv2d(width, 3, 3, padding=1))
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.decoders, self.ups = nn.ModuleList(), nn.ModuleList()
        channels = width
        for blocks in encoder:
            self.encoders.append(_blocks(channels, blocks))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = _blocks(channels, middle)
        for blocks in decoder:
            self.ups.append(nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2)))
            channels //= 2
            self.decoders.append(_blocks(channels, blocks))
        self.stride = 2 ** len(encoder)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        features = self.intro(pad_to_multiple(images, self.stride))
        skips = []
        for stage, down in zip(self.encoders, self.downs, strict=True):
            features = stage(features)
            skips.append(features)
            features = down(features)
        features = self.middle_blks(features)
        for stage, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            features = stage(up(features) + skip)
        return images + self.ending(features)[..., :height, :width]


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))
