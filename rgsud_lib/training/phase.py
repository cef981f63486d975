"""A phase of training: its steps, its schedule, and where its time goes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with its own optimisers and cosine schedule."""

    name: str  # "warm_start", "recycle" or "reinforce"
    steps: int
    learning_rate: float
    final_learning_rate: float
    recycles: bool  # score candidates and offer them to the pool
    rewards: bool  # the switch: rewards replace the U-Net and pull the derainer


def cosine(phase: Phase, step: int) -> float:
    """Learning rate at a step of the phase: from `learning_rate` down to `final_learning_rate`."""
    share = min(1.0, step / max(1, phase.steps - 1))
    return (
        phase.final_learning_rate
        + (phase.learning_rate - phase.final_learning_rate) * (1 + math.cos(math.pi * share)) / 2
    )


class Clock:
    """Where the time goes between two rows of the log, and in all."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.total: dict[str, float] = {}
        self.steps = 0
        self._last = time.perf_counter()

    def mark(self, part: str) -> None:
        """Count the time since the last mark as spent on `part`."""
        now = time.perf_counter()
        for times in (self.spent, self.total):
            times[part] = times.get(part, 0.0) + now - self._last
        self._last = now
        self.steps += part == "step"

    def scoring_share(self) -> float:
        """Share of scoring rounds in the time of steps and rounds since the phase (or this process) began."""
        rounds, steps = self.total.get("scoring", 0.0), self.total.get("step", 0.0) + self.total.get("data", 0.0)
        return rounds / max(1e-9, rounds + steps)

    def report(self) -> dict[str, float]:
        """Seconds a step by part and the share of scoring; starts again."""
        steps = max(1, self.steps)
        times = {
            f"time/{part}_seconds_per_step": self.spent.get(part, 0.0) / steps for part in ("data", "step", "scoring")
        }
        times["time/scoring_share"] = self.scoring_share()
        self.spent, self.steps = {}, 0
        return times
