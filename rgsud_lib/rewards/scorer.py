"""What every reward is: a function of an output and the rainy image it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rgsud_lib.data.images import check_images
from rgsud_lib.errors import TrainingError
from rgsud_lib.networks.layers import low_pass

SIDE = 256  # pixels of the centre that is looked at before a scorer is used


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
    """A scorer that also says where: `score_map` gives B x 1 x H x W, higher where the output is better."""

    def score_map(self, output: Tensor, rainy: Tensor) -> Tensor: ...


def check_scorer(scorer: Scorer, rainy: Mapping[str, Tensor]) -> None:
    """Try a scorer on some rainy images, 1 x 3 x H x W by name, before anything depends on it.

    Raises TrainingError where a score is not finite, or where image, blurred and darkened image get the same
    score in all of them: such a scorer cannot choose anything.
    """
    same = []
    for name, image in rainy.items():
        image = check_images(image, name)[..., :SIDE, :SIDE]
        outputs = torch.cat([image, low_pass(image, 9, 1.5), 0.9 * image])
        scores = scorer(outputs, image.expand(3, -1, -1, -1))
        if not torch.isfinite(scores).all():
            raise TrainingError(
                f"scorer {scorer.name!r} gave {scores.tolist()} for image {name}, blurred and darkened; "
                "expected finite scores: choose another reward.scorer"
            )
        same.append(bool((scores == scores[0]).all()))
    if same and all(same):
        raise TrainingError(
            f"scorer {scorer.name!r} gave image {next(iter(rainy))}, blurred and darkened, the same score "
            f"{scores[0].item()}, and so for {len(same)} images; expected scores that differ: choose another "
            "reward.scorer"
        )
