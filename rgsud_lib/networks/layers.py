"""What the networks share: padding to a multiple, channel LayerNorm, a low-pass, identity start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.losses import gaussian_blur


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom by edge pixels so that both sides divide by `multiple`; the caller crops back."""
    # Not `-side % multiple`: torch.export knows that half of 8 * n is 4 * n, and nothing of a side plus a remainder.
    height, width = images.shape[-2:]
    right, bottom = ((side + multiple - 1) // multiple * multiple - side for side in (width, height))
    return F.pad(images, (0, right, 0, bottom), mode="replicate")


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


def low_pass(images: Tensor, size: int, sigma: float) -> Tensor:
    """Gaussian blur, edges repeated, same size; float32 also under autocast, so that image minus blur is exact."""
    reach = size // 2
    with torch.autocast(images.device.type, enabled=False):
        return gaussian_blur(F.pad(images.float(), (reach,) * 4, mode="replicate"), size, sigma)


def zero_start(layer: nn.Conv2d) -> nn.Conv2d:
    """Zero the layer that ends a residual branch: the network starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
