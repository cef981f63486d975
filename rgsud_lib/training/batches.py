"""The batch of a step: a pure function of (seed, step) but for the rewards, which come from the pool.

Every rank draws the whole global batch and makes its part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from rgsud_lib.config import Config
from rgsud_lib.data.degradations import DEGRADATIONS
from rgsud_lib.data.sampling import Stream, cut, draw_crops, stream
from rgsud_lib.distributed import part
from rgsud_lib.methods.batch import Batch
from rgsud_lib.rewards.pool import RewardPool

if TYPE_CHECKING:
    from rgsud_lib.training.phase import Phase


class Batches:
    """Crops for each phase; steps are counted over the whole pipeline, so no phase repeats another's draws."""

    def __init__(
        self,
        config: Config,
        rainy: Sequence[str],
        clean: Sequence[str],
        load: Callable[[str], np.ndarray],
        pool: RewardPool,
    ):
        self.config, self.rainy, self.clean, self.load, self.pool = config, list(rainy), list(clean), load, pool
        self.draw = DEGRADATIONS[config.degradation.name].draw

    def count(self, phase: Phase) -> int:
        """Crops in a batch, over all ranks."""
        return self.config.warm_start.batch if phase.name == "warm_start" else self.config.training.batch

    def side(self, phase: Phase) -> int:
        """Pixels of a crop's side."""
        return self.config.warm_start.crop if phase.name == "warm_start" else self.config.training.crop

    def offset(self, phase: Phase) -> int:
        """Steps of the stage before this phase."""
        return self.config.warm_start.steps if phase.name == "recycle" and self.config.warm_start.enabled else 0

    def batch(self, phase: Phase, step: int, device: torch.device) -> Batch:
        """This rank's crops, mixture choices and rewards of one step, on `device`."""
        training, method = self.config.training, self.config.method
        count, side = self.count(phase), self.side(phase)
        # Stage 2 draws from its own streams: another first word of the seed sequence.
        position = self.offset(phase) + step + (1 << 40 if phase.name == "reinforce" else 0)
        seed = training.seed
        mine = part(count)
        clean = cut(draw_crops(self.clean, count, stream(seed, position, Stream.CLEAN))[mine], side, self.load)
        crops = draw_crops(self.rainy, count, stream(seed, position, Stream.RAINY))[mine]
        mixture = stream(seed, position, Stream.MIXTURE)
        chance = mixture.random(count)
        gain = 1 + method.rain_jitter * (2 * mixture.random(count) - 1)
        chance, gain = chance[mine], gain[mine]
        use_clean = chance < method.clean_share
        use_drawn = (chance >= method.clean_share) & (
            chance < method.clean_share + (1 - method.clean_share) * self._replay(phase)
        )
        drawn = None
        if use_drawn.any():
            drawn = self.draw(clean, (seed, position, Stream.DRAWN_RAIN), count=count, part=mine)
            drawn = torch.where(torch.from_numpy(use_drawn).view(-1, 1, 1, 1), drawn, clean)
        batch = Batch(
            clean=clean,
            rainy=cut(crops, side, self.load),
            drawn=clean if drawn is None else drawn,
            use_drawn=torch.from_numpy(use_drawn),
            use_clean=torch.from_numpy(use_clean),
            gain=torch.from_numpy(gain).float(),
            reward=cut(crops, side, self.pool.image) if phase.rewards else None,
        )
        return Batch(
            **{
                name: value if value is None else value.to(device, non_blocking=True)
                for name, value in vars(batch).items()
            }
        )

    def _replay(self, phase: Phase) -> float:
        """Share of drawn rain among the pseudo-pairs that are not clean crops."""
        warm = self.config.warm_start
        if phase.name == "warm_start":
            return 1.0
        return (warm.late_replay if phase.name == "reinforce" else warm.replay) if warm.enabled else 0.0
