"""PReNet (Ren et al., CVPR 2019, arXiv 1901.09221): one small network, applied again and again.

Each pass sees the rainy image and the pass before; an LSTM carries what was found. The parameters are shared by
all passes: 0.17 M as published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import zero_start

BLOCKS = 5  # residual blocks of a pass


class PReNet(nn.Module):
    """B x 3 x H x W in [0,1] to the restored image (not clamped) after `passes` passes of `width` channels."""

    CHANNELS = 3  # of what is estimated

    def __init__(self, width: int = 32, passes: int = 6):
        super().__init__()
        self.passes = passes
        self.stem = nn.Sequential(nn.Conv2d(3 + self.CHANNELS, width, 3, padding=1), nn.ReLU())
        self.gates = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
            )
            for _ in range(BLOCKS)
        )
        self.head = zero_start(nn.Conv2d(width, self.CHANNELS, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.refine(images, images, images)

    def refine(self, images: Tensor, output: Tensor, base: Tensor) -> Tensor:
        """The passes: `output` is what the first one is told, `base` what each one's finding is added to."""
        hidden = cell = torch.zeros_like(images[:, :1]).expand(-1, self.head.in_channels, -1, -1)
        for _ in range(self.passes):
            features = self.stem(torch.cat([images, output], dim=1))
            hidden, cell = self._remember(features, hidden, cell)
            features = hidden
            for block in self.blocks:
                features = torch.relu(features + block(features))
            output = base + self.head(features)
        return output

    def _remember(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The convolutional LSTM."""
        enter, forget, content, leave = self.gates(torch.cat([features, hidden], dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(content)
        return torch.sigmoid(leave) * torch.tanh(cell), cell
