"""Where candidates for the pool come from (ours): selection gains nothing where all of them are alike.

| name | what | derainer passes |
|---|---|---|
| plain | the EMA weights' output, as the paper's | 1 |
| raw | the present weights' output | 1 |
| mirror | mean over the image and its mirror image | 2 |
| flips | mean over all four flips | 4 |
| rotations | mean over the eight flips and quarter turns | 8 |
| blend | mean of the pooled reward and the plain output: over time, of several checkpoints | 1 |
| tiles | pooled reward and plain output, blended by a scorer's map of where each is better | 1 |

A source that was needed twice in a round is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from rgsud_lib.errors import ConfigError
from rgsud_lib.rewards.scorer import MapScorer, Scorer

Derain = Callable[[Tensor], Tensor]
WINDOW = 33  # pixels over which a score map is averaged before tiles are blended
FLIPS = ((), (-1,), (-2,), (-1, -2))


@dataclass
class Candidates:
    """Makes the candidates of a batch of images of one size, B x 3 x H x W in [0,1].

    `derain` is by the EMA weights, `derain_raw` by the present ones; `rewards` are the pooled images, 1 x 3 x H x W,
    None where a slot is still empty (the plain output stands for it).
    """

    rainy: Tensor
    rewards: Sequence[Tensor | None]
    derain: Derain
    derain_raw: Derain
    scorer: Scorer
    _outputs: dict[tuple[int, tuple[int, ...]], Tensor] = field(default_factory=dict)

    def plain(self) -> Tensor:
        return self._turned(0, ())

    def raw(self) -> Tensor:
        return self.derain_raw(self.rainy)

    def mirror(self) -> Tensor:
        return self._mean(turns=1, flips=FLIPS[:2])

    def flips(self) -> Tensor:
        return self._mean(turns=1, flips=FLIPS)

    def rotations(self) -> Tensor:
        return self._mean(turns=2, flips=FLIPS)

    def blend(self) -> Tensor:
        return (self._pooled() + self.plain()) / 2

    def tiles(self) -> Tensor:
        """Raises ConfigError where the scorer has no map."""
        if not isinstance(self.scorer, MapScorer):
            raise ConfigError(
                f"reward.candidates has 'tiles', but scorer {self.scorer.name!r} has no map; use rain_layer or critic"
            )
        pooled, plain = self._pooled(), self.plain()
        gain = _smooth(self.scorer.score_map(plain, self.rainy) - self.scorer.score_map(pooled, self.rainy))
        scale = gain.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        return torch.lerp(pooled, plain, torch.sigmoid(2 * gain / scale).cpu())

    def _pooled(self) -> Tensor:
        pairs = zip(self.rewards, self.plain().split(1), strict=True)
        return torch.cat([plain if reward is None else reward for reward, plain in pairs])

    def _mean(self, turns: int, flips: Sequence[tuple[int, ...]]) -> Tensor:
        return torch.stack([self._turned(turn, flip) for turn in range(turns) for flip in flips]).mean(0)

    def _turned(self, turn: int, flip: tuple[int, ...]) -> Tensor:
        """Derained after `turn` quarter turns and a flip, and turned back."""
        if (turn, flip) not in self._outputs:
            turned = self.rainy.rot90(turn, (-2, -1)).flip(flip).contiguous()
            self._outputs[turn, flip] = self.derain(turned).flip(flip).rot90(-turn, (-2, -1))
        return self._outputs[turn, flip]


# One name for each source, as in the table above.
SOURCES: dict[str, Callable[[Candidates], Tensor]] = {
    name: getattr(Candidates, name) for name in ("plain", "raw", "mirror", "flips", "rotations", "blend", "tiles")
}


POOLED = {"blend", "tiles"}  # those that look at the present reward


def _smooth(scores: Tensor) -> Tensor:
    reach = WINDOW // 2
    return F.avg_pool2d(F.pad(scores, (reach,) * 4, mode="replicate"), WINDOW, stride=1)
