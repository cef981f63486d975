"""What a step updates: the losses of each group of networks, in the order of the updates.

Each is computed after the update before it, so the discriminator judges what the updated networks are trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rgsud_lib.config import ReinforcementConfig
from rgsud_lib.losses import self_reinforced_loss
from rgsud_lib.methods.rgsud import RGSUD, Batch

Losses = Iterator[tuple[str, dict[str, Tensor]]]


def make_optimizers(method: RGSUD, learning_rate: float, betas: tuple[float, float]) -> dict[str, torch.optim.Adam]:
    """An optimiser for each group of networks."""
    groups = {
        "derainer": list(method.derainer.parameters()),
        "generator": [*method.generator.parameters(), *method.unet.parameters()],
        "discriminator": list(method.discriminator.parameters()),
    }
    return {
        name: torch.optim.Adam(group, learning_rate, betas, fused=group[0].device.type == "cuda")
        for name, group in groups.items()
    }


def warm_start_losses(method: RGSUD, batch: Batch, fabric: Any) -> Losses:
    """Supervised on drawn rain: the derainer and, at the same time, the degradation U-Net."""
    with fabric.autocast():
        derain = method.reconstruction(method.derain(batch.drawn), batch.clean)
        degradation = method.unet_loss(batch, batch.drawn)
    yield "derainer", {"derain": derain}
    yield "generator", {"degradation": degradation}


def method_losses(
    method: RGSUD, batch: Batch, fabric: Any, adversarial: bool, reinforcement: ReinforcementConfig | None
) -> Losses:
    """The derainer's, pulled by the rewards where `reinforcement` is given, then where due those of G, U-Net and D."""
    with fabric.autocast():
        out = method(batch, train_generator=adversarial)
        losses = method.derainer_losses(batch, out)
        if reinforcement:
            losses["self_reinforced"] = reinforcement.weight * self_reinforced_loss(
                out.restored, batch.reward, reinforcement.distance
            )
    yield "derainer", losses
    if not adversarial:
        return
    method.discriminator.requires_grad_(False)
    with fabric.autocast():
        losses = method.generator_losses(batch, out)
    yield "generator", losses
    method.discriminator.requires_grad_(True)
    with fabric.autocast():
        losses = {"discriminator": method.discriminator_loss(batch, out)}
    yield "discriminator", losses
