"""One network a file. `build_derainer` is the axis on which derainers are exchanged."""

from __future__ import annotations

from torch import nn

from rgsud_lib.config import DerainerConfig
from rgsud_lib.networks.nafnet import NAFNet

DERAINERS = {"nafnet": NAFNet}


def build_derainer(config: DerainerConfig) -> nn.Module:
    """The derainer of that name and size: B x 3 x H x W in [0,1] to the restored image, any size, not clamped."""
    return DERAINERS[config.name](config.width, config.encoder, config.middle, config.decoder)
