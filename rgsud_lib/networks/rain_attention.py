"""U-ARSE, the attention-guided rain streak extractor of DerainCycleGAN (TIP 2021): an image to its rain streaks.

As published it is PReNet with a mask in the place of the image: six passes, an LSTM as memory, five residual
blocks, and the mask of the pass before, which is 1/2 everywhere at first. Ours: its last layer starts at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rgsud_lib.networks.prenet import PReNet


class RainAttention(PReNet):
    """B x 3 x H x W in [0,1] to B x 1 x H x W: the light that rain adds to all channels alike (not clamped)."""

    CHANNELS = 1

    def forward(self, images: Tensor) -> Tensor:
        unknown = torch.full_like(images[:, :1], 0.5)
        return self.refine(images, unknown, torch.zeros_like(unknown))
