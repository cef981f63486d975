"""Reward recycling (paper, Algorithm 1), amortised: a few full images now and then, as many as the budget allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from rgsud_lib import distributed
from rgsud_lib.config import RewardConfig
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.data.sampling import Stream, stream
from rgsud_lib.rewards.guard import Guard
from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.rewards.scorer import Scorer
from rgsud_lib.training.budget import Budget
from rgsud_lib.training.candidates import POOLED, SOURCES, Candidates, Derain
from rgsud_lib.training.progress import Progress

BATCH = 4  # images of one size that are derained and scored together


class Recycler:
    """Makes, scores and offers the candidates of rainy training images.

    Which images a round takes is a pure function of (seed, operations spent on training): each epoch visits
    all of them once, in its own random order. Of several processes each takes its share of a round.
    """

    def __init__(  # `images`: the rainy training images' ids and their sizes in pixels
        self,
        config: RewardConfig,
        images: Mapping[str, int],
        load: Callable[[str], np.ndarray],
        scorer: Scorer,
        pool: RewardPool,
        seed: int,
        derain: Derain,
        derain_raw: Derain,
    ):
        self.config, self.images, self.load, self.scorer, self.pool = config, images, load, scorer, pool
        self.seed, self.derain, self.derain_raw = seed, derain, derain_raw
        self._epoch, self._order = -1, []
        self.guard = Guard(config.guard) if config.guard else None
        self.budget = Budget(config.budget, self._rehearse)
        self._position, self._spent = 0, 0.0

    def recycle_due(self, training_flops: float, step: int) -> None:
        """Offer the images whose turn has come since the round before."""
        self._offer(list(self.due(training_flops)), step)

    def due(self, training_flops: float) -> Iterator[str]:
        """Move on to where the budget allows after so much training; yields the images on the way."""
        allowance = self.budget.allowance(training_flops)
        while True:
            image = self._visit(self._position)
            cost = self.budget.cost(self.images[image])
            if self._spent + cost > allowance:
                return
            self._position, self._spent = self._position + 1, self._spent + cost
            yield image

    def recycle_all(self, step: int) -> None:
        """Every image once, so that no slot stays empty; this is outside the budget."""
        with Progress("reward pool", len(self.images)) as progress:
            self._offer(list(self.images), step, progress.advance)

    def state(self) -> dict[str, float]:
        """Where the rounds are: the next visit, and the operations that visits have used."""
        return {"position": self._position, "spent": self._spent}

    def restore(self, state: dict[str, float]) -> None:
        self._position, self._spent = int(state["position"]), state["spent"]

    def _visit(self, position: int) -> str:
        epoch, place = divmod(position, len(self.images))
        if epoch != self._epoch:
            names = list(self.images)
            order = stream(self.seed, epoch, Stream.SCORING).permutation(len(names))
            self._epoch, self._order = epoch, [names[index] for index in order]
        return self._order[place]

    @torch.no_grad()
    def _offer(self, images: Sequence[str], step: int, advance: Callable[[], None] = lambda: None) -> None:
        """Offer to the pool what is this rank's to make, batch by batch, and learn what the others made."""
        mine = list(dict.fromkeys(images))[distributed.rank() :: distributed.world_size()]
        batches = list(self._batches(mine))
        for number in range(max(distributed.gather(len(batches)))):
            if number < len(batches):
                self._offer_batch(batches[number], step)
            for _ in range(self.pool.exchange()):
                advance()

    def _batches(self, images: Sequence[str]) -> Iterator[list[str]]:
        """Images of one size together, at most BATCH."""
        loaded = sorted((self.load(image).shape[:2], image) for image in images)
        for _, group in groupby(loaded, key=lambda item: item[0]):
            names = [image for _, image in group]
            for start in range(0, len(names), BATCH):
                yield names[start : start + BATCH]

    def _offer_batch(self, names: Sequence[str], step: int) -> None:
        rainy = to_tensor(np.stack([self.load(name) for name in names]))
        wanted = self.pool.entries if POOLED & set(self.config.candidates) else ()
        rewards = [to_tensor(self.pool.image(name)) if name in wanted else None for name in names]
        candidates = Candidates(rainy, rewards, self.derain, self.derain_raw, self.scorer)
        for source in self.config.candidates:
            # Scored as it will be stored: the pool's 8-bit picture is the reward.
            outputs = to_uint8(SOURCES[source](candidates))
            scores, trusted = self.judge(to_tensor(outputs), rainy)
            for name, output, score, kept in zip(names, outputs, scores.tolist(), trusted.tolist(), strict=True):
                self.pool.offer(name, output, score, step, source, kept)

    def judge(self, outputs: Tensor, rainy: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and whether the guard trusts them."""
        trusted = torch.ones(len(outputs), dtype=torch.bool) if self.guard is None else self.guard(outputs, rainy)
        return self.scorer(outputs, rainy), trusted

    @torch.no_grad()
    def _rehearse(self, side: int) -> None:
        """All that one image of that side costs, on noise; nothing is offered."""
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(self.seed))
        candidates = Candidates(noise, [noise], self.derain, self.derain_raw, self.scorer)
        for source in self.config.candidates:
            self.judge(SOURCES[source](candidates).clamp(0, 1), noise)
