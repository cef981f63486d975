"""U-Net of the degradation estimation module (paper section 3.1): rainy image to its clean features.

Ronneberger et al. 2015 with strided convolutions. What the untrained network should return is open in
the paper; ours returns a low-pass of its input, so that the degradation starts as fine detail and
training only has to tell the rain's detail from the scene's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import low_pass, pad_to_multiple, zero_start


class UNet(nn.Module):
    """B x 3 x H x W to B x 3 x H x W; `width` channels at full resolution, doubled at each of `depth` halvings."""

    def __init__(self, width: int = 32, depth: int = 4):
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.stem = _convolutions(3, width)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fine, coarse, 2, stride=2), _convolutions(coarse, coarse))
            for fine, coarse in zip(channels, channels[1:], strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in zip(channels, channels[1:], strict=False)
        )
        self.merge = nn.ModuleList(_convolutions(2 * fine, fine) for fine in channels[:-1])
        self.head = zero_start(nn.Conv2d(width, 3, 3, padding=1))
        self.stride = 2**depth

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        features = self.stem(pad_to_multiple(images, self.stride))
        skips = [features]
        for down in self.down:
            skips.append(down(skips[-1]))
        features = skips.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            features = merge(torch.cat([up(features), skips.pop()], dim=1))
        return low_pass(images, 15, 4.0) + self.head(features)[..., :height, :width]


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.2),
    )
