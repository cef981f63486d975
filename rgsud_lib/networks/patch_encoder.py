"""Features of patches to contrast (CUT, ECCV 2020, as DCD-GAN uses it): a strided encoder, and a head on each level.

The original takes the generators' own encoders; ours is a network of its own (the derainer may be any, and not all
have one). Its patches are spread evenly where the original draws them: draws would be a state between steps, and
the crops are drawn already.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PatchEncoder(nn.Module):
    """B x 3 x H x W to a list over levels of B x P x `features`, of unit length, P at most `patches`."""

    def __init__(self, width: int = 64, features: int = 256, patches: int = 256, levels: int = 3):
        super().__init__()
        channels = [3, *(width * 2**level for level in range(levels))]
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fine, coarse, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
            for fine, coarse in zip(channels, channels[1:], strict=False)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(count, features), nn.ReLU(), nn.Linear(features, features))
            for count in channels[1:]
        )
        self.patches = patches

    def forward(self, images: Tensor) -> list[Tensor]:
        found = []
        for level, head in zip(self.levels, self.heads, strict=True):
            images = level(images)
            places = images.flatten(2).transpose(1, 2)
            step = max(1, -(-places.shape[1] // self.patches))
            found.append(F.normalize(head(places[:, ::step]), dim=-1))
        return found
