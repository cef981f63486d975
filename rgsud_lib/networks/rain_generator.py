"""Rain synthesiser G (paper section 3.1): a ResNet with 6 residual blocks.

How it is conditioned is open in the paper. Ours: clean image and rain residual concatenated; what
the network adds is a correction of "clean + residual" that starts at zero, so that G starts as the
plain transplant of the residual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import zero_start


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class RainGenerator(nn.Module):
    """Clean B x 3 x H x W and rain residual of the same shape to a rainy image (not clamped)."""

    def __init__(self, width: int = 64, blocks: int = 6):
        super().__init__()
        self.head = nn.Conv2d(6, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.tail = zero_start(nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, clean: Tensor, residual: Tensor) -> Tensor:
        return clean + residual + self.tail(self.body(self.head(torch.cat([clean, residual], dim=1))))
