"""PatchGAN discriminator (Isola et al., CVPR 2017) on an image and its high-pass, as CSUD feeds it.

Without instance normalisation (ours): how strong the fine detail is tells rain, and normalisation hides it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import low_pass


class PatchGAN(nn.Module):
    """B x 3 x H x W to a map of patch decisions, B x 1 x h x w; LSGAN: 1 is real, 0 is fake.

    The second half of its input is the high-pass (image minus a 15x15 Gaussian of sigma 9).
    """

    def __init__(self, width: int = 64, layers: int = 3):
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(6, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for level in range(1, layers + 1):
            wider = width * min(2**level, 8)
            stride = 2 if level < layers else 1
            body += [nn.Conv2d(channels, wider, 4, stride=stride, padding=1), nn.LeakyReLU(0.2)]
            channels = wider
        self.body = nn.Sequential(*body, nn.Conv2d(channels, 1, 4, stride=1, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(_with_detail(images))

    def features(self, images: Tensor) -> list[Tensor]:
        """What it sees before it decides: its levels from fine to coarse, each B x C x h x w."""
        found, levels = [], _with_detail(images)
        for layer in self.body[:-1]:
            levels = layer(levels)
            if isinstance(layer, nn.LeakyReLU):
                found.append(levels)
        return found


def _with_detail(images: Tensor) -> Tensor:
    return torch.cat([images, images - low_pass(images, 15, 9.0)], dim=1)
