"""RESCAN (Li et al., ECCV 2018, arXiv 1807.05698): stages that each take off what rain is left.

A stage is a chain of dilated convolutional GRUs with channel attention; their states pass from stage to stage
and the parameters are shared: 0.15 M as published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import zero_start

SQUEEZE = 6  # reduction of the channel attention


class RESCAN(nn.Module):
    """B x 3 x H x W in [0,1] to the restored image (not clamped).

    `depth` GRUs of `width` channels, dilated by 1, 1, 2, 4 and so on, are run `stages` times.
    """

    def __init__(self, width: int = 24, depth: int = 5, stages: int = 4):
        super().__init__()
        self.stages = stages
        self.units = nn.ModuleList(
            [ConvGRU(3, width, 1), *(ConvGRU(width, width, 2**level) for level in range(depth - 1))]
        )
        self.decode = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), SqueezeExcitation(width), nn.LeakyReLU(0.2))
        self.head = zero_start(nn.Conv2d(width, 3, 1))

    def forward(self, images: Tensor) -> Tensor:
        states: list[Tensor | None] = [None] * len(self.units)
        output, rain = images, torch.zeros_like(images)
        for _ in range(self.stages):
            features = output
            for number, unit in enumerate(self.units):
                features = states[number] = unit(features, states[number])
            rain = rain + self.head(self.decode(features))
            output = images - rain
        return output


class ConvGRU(nn.Module):
    """A gated recurrent unit of convolutions; those of the input are dilated."""

    def __init__(self, inputs: int, width: int, dilation: int):
        super().__init__()
        self.input = nn.Conv2d(inputs, 3 * width, 3, padding=dilation, dilation=dilation)
        self.gates = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.memory = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor, state: Tensor | None) -> Tensor:
        update, reset, content = self.input(features).chunk(3, dim=1)
        if state is None:
            state = torch.zeros_like(content)
        kept_update, kept_reset = self.gates(state).chunk(2, dim=1)
        update, reset = torch.sigmoid(update + kept_update), torch.sigmoid(reset + kept_reset)
        content = torch.tanh(content + self.memory(reset * state))
        return nn.functional.leaky_relu(torch.lerp(state, content, update), 0.2)


class SqueezeExcitation(nn.Module):
    """Channels weighed by their means (Hu et al., CVPR 2018)."""

    def __init__(self, width: int):
        super().__init__()
        squeezed = max(1, width // SQUEEZE)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features * self.weigh(features)
