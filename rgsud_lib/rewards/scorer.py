"""What every reward is: a function of an output and the rainy image it came from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


class Scorer(Protocol):
    """`scorer(output, rainy)`: two B x 3 x H x W in [0,1] to B float32 scores on the CPU, deterministic.

    Higher is better, always. `version` digests weights and settings: scores of different versions are
    never compared. `higher_is_better` is the native direction, for display.
    """

    name: str
    version: str
    higher_is_better: bool

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor: ...


@runtime_checkable
class MapScorer(Protocol):
    """A scorer that also says where: `score_map` gives B x 1 x H x W whose mean over the image is the score."""

    def score_map(self, output: Tensor, rainy: Tensor) -> Tensor: ...
