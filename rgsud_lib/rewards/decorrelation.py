"""Decorrelation (ours): what was removed must not look like what remains.

Minus the correlation, over the pixels of an image, of |rainy - output| with the gradient magnitude
of the output. Rain falls independently of the scene, so a removed layer that follows the scene's
edges took scene with it, and streaks left in the output follow the streaks that were removed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rgsud_lib.config import digest_of
from rgsud_lib.data.images import check_images

LUMA = (0.299, 0.587, 0.114)
VISIBLE = 0.5 / 255  # a removed layer that no 8-bit image can hold counts as nothing removed


class Decorrelation:
    """Scorer in [-1, 1], higher is better; -1 where nothing was removed."""

    name = "decorrelation"
    higher_is_better = True

    def __init__(self) -> None:
        self.version = digest_of({"name": self.name, "revision": 1, "luma": LUMA, "visible": VISIBLE})

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor:
        """Output and rainy B x 3 x H x W in [0,1] to B scores. Raises ValueError on bad images."""
        output, rainy = check_images(output, "output").float(), check_images(rainy, "rainy").float()
        removed = (rainy - output).abs().mean(1)
        removed = torch.where(removed < VISIBLE, 0.0, removed)[:, 1:-1, 1:-1].flatten(1)
        gradient = gradient_magnitude(output).flatten(1)
        return torch.where((removed > 0).any(1), -correlation(removed, gradient), -1.0).cpu()


def gradient_magnitude(images: Tensor) -> Tensor:
    """Central differences of the luma, B x (H - 2) x (W - 2)."""
    luma = (images * torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)).sum(1)
    across = (luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]) / 2
    down = (luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1]) / 2
    return torch.hypot(across, down)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation along the last axis of B x N; 0 where either is constant."""
    first, second = (
        first.double() - first.double().mean(1, keepdim=True),
        second.double() - second.double().mean(1, keepdim=True),
    )
    scale = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(scale > 0, (first * second).sum(1) / scale.clamp(min=1e-30), 0.0).float()
