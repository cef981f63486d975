"""Scores without a reference, before and after, of the page and of POST /derain?scores=true."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from rgsud_lib.data.images import to_tensor
from rgsud_lib.rewards.critic import Critic
from rgsud_lib.rewards.decorrelation import Decorrelation
from rgsud_lib.rewards.piqe import Piqe
from rgsud_lib.rewards.rain_layer import RainLayer
from rgsud_lib.rewards.scorer import Scorer

LARGEST, SMALLEST = 1024, 16  # pixels: side of the centre that is scored, and below which nothing is


class Meaning(NamedTuple):
    """What a score is called, which direction is better, and what it does and does not tell."""

    title: str
    higher: bool
    text: str


MEANINGS = {
    "critic": Meaning("Critic", True, "This run's learnt ranking: less rain left, less scene lost. Compare before and "
                      "after only, never two photographs. The score that agreed best with the truth where we had it."),
    "decorrelation": Meaning("Decorrelation", True, "-1 to 1: what was removed should not look like what remains. "
                             "-1 where nothing was removed."),
    "rain_layer": Meaning("Rain layer", True, "How much light was removed that rain may have added, less what rain "
                          "cannot have. 0 where nothing was removed."),
    "piqe": Meaning("PIQE", False, "0 to 100: visible distortions, whatever their reason. Rain looks like detail to "
                    "it, so it says little about rain."),
}  # fmt: skip


class Scores:
    """Computes them: the embedded ones and, where a dataset has one, its critic's."""

    def __init__(self, critic: Critic | None = None) -> None:
        self._scorers: list[Scorer] = [Decorrelation(), RainLayer(), Piqe()]
        if critic is not None:
            self._scorers.insert(0, critic)

    @property
    def meanings(self) -> dict[str, Meaning]:
        return {scorer.name: MEANINGS[scorer.name] for scorer in self._scorers}

    @torch.inference_mode()
    def __call__(self, rainy: np.ndarray, derained: np.ndarray) -> dict[str, tuple[float, float]]:
        """{"piqe": (before, after), ...} of samples H x W x C in each score's native direction; none for tiny images.

        Of large images the centre is scored, 1024 pixels square.
        """
        if min(rainy.shape[:2]) < SMALLEST:
            return {}
        before, after = (to_tensor(_colours(_centre(image))) for image in (rainy, derained))
        found = {}
        for scorer in self._scorers:
            sign = 1 if scorer.higher_is_better else -1
            values = (round(sign * float(scorer(image, before)), 4) for image in (before, after))
            found[scorer.name] = tuple(values)
        return found


def _centre(image: np.ndarray) -> np.ndarray:
    top, left = (max(0, side - LARGEST) // 2 for side in image.shape[:2])
    return image[top : top + LARGEST, left : left + LARGEST]


def _colours(samples: np.ndarray) -> np.ndarray:
    """H x W x 1, 2, 3 or 4 to H x W x 3: grey repeated, alpha left out."""
    channels = samples.shape[-1]
    return samples[..., :3] if channels > 2 else np.repeat(samples[..., :1], 3, axis=-1)
