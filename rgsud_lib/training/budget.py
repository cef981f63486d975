"""What scoring may cost (ours): a share of a stage's time, which is counted in operations and not measured.

Times differ from run to run, so a schedule made from them could not be resumed exactly. Floating-point
operations of convolutions and matrix products do not, and follow the times closely where the same
networks do both; the log has the measured share beside it. Scorers without networks (NIQE, PIQE, ours) count
next to nothing, whatever time they take.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from rgsud_lib.distributed import world_size

SIDES = 96, 192  # images on which the cost of scoring is counted
# Measured on a CPU: an operation on whole images, with their 8-bit conversion and their files, takes two
# to three times as long as one on training crops, which stay in the cache.
SLOWER = 3.0


log = logging.getLogger("rgsud")


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products in `work()`, backward passes included."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would hide attention from the counter
    try:
        with FlopCounterMode(display=False) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


class Effort:
    """What training uses in a phase: its first steps, up to one of each of `kinds`, are counted."""

    def __init__(self, kinds: int, warm_up: int):
        """Steps before `warm_up` do not count."""
        self.kinds, self.warm_up, self.flops = kinds, warm_up, 0

    def spend(self, step: int, work: Callable[[], object]) -> None:
        """Do the work of a step; it counts for all processes together."""
        if step < self.kinds:
            self.flops += world_size() * count_flops(work)
        else:
            work()

    def until(self, step: int) -> float:
        """Operations used by that step."""
        return self.flops / self.kinds * max(0, step - self.warm_up) if step >= self.kinds else 0.0


class Budget:
    """How much of the training's time the candidates of so many images take, in operations of a training step."""

    def __init__(self, share: float, score: Callable[[int], object]):
        """`share` of the total, in (0, 1); `score(side)` makes and scores the candidates of a `side` square image."""
        small, large = (count_flops(lambda side=side: score(side)) for side in SIDES)
        self.share = share
        self.per_pixel = SLOWER * (large - small) / (SIDES[1] ** 2 - SIDES[0] ** 2)
        self.per_image = max(0.0, SLOWER * small - self.per_pixel * SIDES[0] ** 2)

    def cost(self, pixels: int) -> float:
        """Operations for one image."""
        return self.per_image + self.per_pixel * pixels

    def allowance(self, training_flops: float) -> float:
        """Operations that scoring may have used once training has used `training_flops`."""
        return training_flops * self.share / (1 - self.share)


def report_cost(phase: str, share: float, budget: float) -> None:
    """Log the measured share of scoring, as a warning where it is far above the budget."""
    level = logging.WARNING if share > 1.5 * budget else logging.INFO
    words = "%s: scoring rounds took %.1f %% of the time (reward.budget allows %.1f %%)"
    log.log(level, words, phase, 100 * share, 100 * budget)
