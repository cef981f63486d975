"""Reward recycling (paper, Algorithm 1), amortised: a few full images now and then, by the EMA weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.data.sampling import Stream, stream
from rgsud_lib.rewards import Scorer
from rgsud_lib.rewards.pool import RewardPool


@dataclass
class Recycler:
    """Derains, scores and offers rainy training images; which ones is a pure function of (seed, round)."""

    images: Sequence[str]
    load: Callable[[str], np.ndarray]
    scorer: Scorer
    pool: RewardPool
    seed: int
    derain: Callable[[Tensor], Tensor]

    def recycle_some(self, round_number: int, count: int, step: int) -> None:
        """The `count` images whose turn it is: each epoch visits all of them once, in its own random order."""
        first = round_number * count
        self._offer([self._visit(position) for position in range(first, first + min(count, len(self.images)))], step)

    def recycle_all(self, step: int) -> None:
        """Every image once, so that no slot stays empty."""
        self._offer(self.images, step)

    def _visit(self, position: int) -> str:
        epoch, place = divmod(position, len(self.images))
        return self.images[stream(self.seed, epoch, Stream.SCORING).permutation(len(self.images))[place]]

    @torch.no_grad()
    def _offer(self, images: Sequence[str], step: int, batch: int = 4) -> None:
        loaded = sorted((self.load(image).shape[:2], image) for image in dict.fromkeys(images))
        for _, group in groupby(loaded, key=lambda item: item[0]):
            names = [image for _, image in group]
            for start in range(0, len(names), batch):
                self._offer_batch(names[start : start + batch], step)

    def _offer_batch(self, names: Sequence[str], step: int) -> None:
        rainy = to_tensor(np.stack([self.load(name) for name in names]))
        # Scored as it will be stored: the pool's 8-bit picture is the reward.
        outputs = to_uint8(self.derain(rainy))
        scores = self.scorer(to_tensor(outputs), rainy)
        for name, output, score in zip(names, outputs, scores.tolist(), strict=True):
            self.pool.offer(name, output, score, step)


def mirrored(derain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The mean of a derainer's output for an image and, mirrored back, for its mirror image: twice the cost."""
    return lambda images: (derain(images) + derain(images.flip(-1)).flip(-1)) / 2
