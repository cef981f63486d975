"""Exponential moving average of the derainer's weights: what is validated, scored and exported."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """`module` is the averaged copy; the decay is shortened at first so that early weights are forgotten."""

    def __init__(self, source: nn.Module, decay: float):
        self.module = copy.deepcopy(source).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, source: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averaged, current = list(self.module.state_dict().values()), list(source.state_dict().values())
        torch._foreach_lerp_(averaged, current, 1 - decay)
