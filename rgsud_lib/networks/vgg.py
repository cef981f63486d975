"""VGG19 (Simonyan and Zisserman, ICLR 2015) up to relu3_3, for perceptual losses, without torchvision.

Its weights are torchvision's, from a file of the user's; nothing is downloaded.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.errors import ConfigError

WIDTHS = 64, 64, 0, 128, 128, 0, 256, 256, 256  # channels of each convolution; 0: halve the resolution
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PerceptualLoss:
    """L1 distance of relu3_3 features (Johnson et al., ECCV 2016). No module: it is no part of a method's weights."""

    def __init__(self, weights: str | Path):
        """Raises ConfigError: no such file, or no VGG19's."""
        self.network = _features().eval().requires_grad_(False)
        path = Path(weights)
        wanted = "method.csud.vgg_weights; expected torchvision's VGG19, vgg19-dcbb9e9d.pth"
        if not path.is_file():
            raise ConfigError(f"{path} is no file: set {wanted}, or method.csud.perceptual_weight=0")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            own = {name: state[f"features.{name}"] for name in self.network.state_dict()}
            self.network.load_state_dict(own)
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, RuntimeError) as error:
            raise ConfigError(f"{path} cannot be read for {wanted} ({str(error).splitlines()[0]})") from error

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """A scalar for images B x 3 x H x W in [0,1]; no gradient to `target`."""
        self.network.to(output.device)
        with torch.no_grad():
            wanted = self._of(target)
        return F.l1_loss(self._of(output), wanted)

    def _of(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return self.network((images - mean) / std)


def _features() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
