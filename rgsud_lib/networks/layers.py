"""What the networks share: padding to a multiple, channel LayerNorm, a low-pass, identity start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.losses import gaussian_window


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom by edge pixels so that both sides divide by `multiple`; the caller crops back."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of B x C x H x W; plain operators, so it exports, and fast in channels-last."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        last = features.permute(0, 2, 3, 1)
        return F.layer_norm(last, last.shape[-1:], self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class LowPass(nn.Module):
    """Gaussian blur of an image, edges repeated; fixed, and not part of the weights."""

    def __init__(self, size: int, sigma: float):
        super().__init__()
        self.reach = size // 2
        line = gaussian_window(size, sigma)[0, 0].sum(0)
        self.register_buffer("line", line.view(1, 1, 1, size).expand(3, 1, 1, size).contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (self.reach,) * 4, mode="replicate")
        line = self.line.to(images.dtype)
        return F.conv2d(F.conv2d(padded, line, groups=3), line.transpose(2, 3), groups=3)


def zero_start(layer: nn.Conv2d) -> nn.Conv2d:
    """Zero the layer that ends a residual branch: the network starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
