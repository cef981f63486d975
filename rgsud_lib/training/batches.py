"""The batch of a step: a pure function of (seed, step) but for the rewards, which come from the pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from rgsud_lib.config import Config
from rgsud_lib.data.rain import draw_rain
from rgsud_lib.data.sampling import Stream, cut, draw_crops, stream
from rgsud_lib.methods.rgsud import Batch
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

    def offset(self, phase: Phase) -> int:
        """Steps of the stage before this phase."""
        return self.config.warm_start.steps if phase.name == "recycle" and self.config.warm_start.enabled else 0

    def batch(self, phase: Phase, step: int, device: torch.device) -> Batch:
        """All crops, mixture choices and rewards of one step, on `device`."""
        warm, training, method = self.config.warm_start, self.config.training, self.config.method
        count, side = (warm.batch, warm.crop) if phase.name == "warm_start" else (training.batch, training.crop)
        # Stage 2 draws from its own streams: another first word of the seed sequence.
        position = self.offset(phase) + step + (1 << 40 if phase.name == "reinforce" else 0)
        seed = training.seed
        clean = cut(draw_crops(self.clean, count, stream(seed, position, Stream.CLEAN)), side, self.load)
        crops = draw_crops(self.rainy, count, stream(seed, position, Stream.RAINY))
        mixture = stream(seed, position, Stream.MIXTURE)
        chance = mixture.random(count)
        use_clean = chance < method.clean_share
        use_drawn = (chance >= method.clean_share) & (
            chance < method.clean_share + (1 - method.clean_share) * self._replay(phase)
        )
        drawn = None
        if use_drawn.any():
            drawn = draw_rain(clean, (seed, position, Stream.DRAWN_RAIN))
            drawn = torch.where(torch.from_numpy(use_drawn).view(-1, 1, 1, 1), drawn, clean)
        gain = 1 + method.rain_jitter * (2 * mixture.random(count) - 1)
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
