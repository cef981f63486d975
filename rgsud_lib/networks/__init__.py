"""One network a file. `build_derainer` is the axis on which derainers are exchanged."""

from __future__ import annotations

from torch import nn

from rgsud_lib.config import DerainerConfig
from rgsud_lib.networks.drsformer import DRSformer
from rgsud_lib.networks.mprnet import MPRNet
from rgsud_lib.networks.nafnet import NAFNet
from rgsud_lib.networks.nerd_rain import NeRDRain
from rgsud_lib.networks.prenet import PReNet
from rgsud_lib.networks.rescan import RESCAN
from rgsud_lib.networks.restormer import Restormer

DERAINERS = {
    "nafnet": NAFNet,
    "prenet": PReNet,
    "rescan": RESCAN,
    "mprnet": MPRNet,
    "restormer": Restormer,
    "drsformer": DRSformer,
    "nerd_rain": NeRDRain,
}


def build_derainer(config: DerainerConfig) -> nn.Module:
    """The derainer of that name and size: B x 3 x H x W in [0,1] to the restored image, any size, not clamped."""
    return DERAINERS[config.name](**config.arguments)
