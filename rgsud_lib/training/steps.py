"""What a step updates: the method's losses in its order, and around them what no method needs to know of.

Self-reinforcement adds its loss to whatever trains the derainer; mixed precision is switched on while losses are
computed.
"""

from __future__ import annotations

from typing import Any

import torch

from rgsud_lib.config import ReinforcementConfig
from rgsud_lib.losses import self_reinforced_loss
from rgsud_lib.methods import Batch, Method, Updates
from rgsud_lib.training.phase import Phase


def make_optimizers(method: Method, learning_rate: float, betas: tuple[float, float]) -> dict[str, torch.optim.Adam]:
    """An optimiser for each group of the method's weights."""
    return {
        name: torch.optim.Adam(group, learning_rate, betas, fused=group[0].device.type == "cuda")
        for name, group in method.groups().items()
    }


def step_updates(
    method: Method, batch: Batch, phase: Phase, adversarial: bool, reinforcement: ReinforcementConfig, fabric: Any
) -> Updates:
    """The updates of one step of a phase; each is computed when it is asked for, after the one before it was made."""
    updates = method.warm_start(batch) if phase.name == "warm_start" else method.updates(batch, adversarial)
    if phase.rewards:
        updates = reinforced(method, batch, updates, reinforcement)
    return _under_autocast(updates, fabric)


def reinforced(method: Method, batch: Batch, updates: Updates, settings: ReinforcementConfig) -> Updates:
    """Self-reinforcement of any method: `weight * L_re(derain(O_r), B_rw)` joins the losses of group "derainer"."""
    for update in updates:
        if update.group == "derainer":
            restored = method.derain(batch.rainy) if update.restored is None else update.restored
            pull = settings.weight * self_reinforced_loss(restored, batch.reward, settings.distance)
            update = update._replace(losses=update.losses | {"self_reinforced": pull})
        yield update


def _under_autocast(updates: Updates, fabric: Any) -> Updates:
    """The same, computed in the configured precision; whoever makes the updates is outside of it."""
    while True:
        with fabric.autocast():
            update = next(updates, None)
        if update is None:
            return
        yield update
