"""Ensembles (ours): a weighted mean of several scorers, made comparable on a reference sample.

The sample is fixed by the clean images: rain is drawn on some of them, and each gets candidates
from "nothing removed" to "perfect", among them blurred and recoloured ones. A reward only ever compares
candidates of one image, so a scorer's scale is its spread between the candidates of an image, not
between images. The scale is part of the version: scores stay comparable over a run and after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rgsud_lib.config import digest_of
from rgsud_lib.data.degradations import DEGRADATIONS
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import content_id
from rgsud_lib.errors import DataError, TrainingError
from rgsud_lib.networks.layers import low_pass
from rgsud_lib.rewards.scorer import Scorer

IMAGES, SIDE, CANDIDATES, SEED = 16, 256, 9, 20_260_500
REVISION = 1


class Ensemble:
    """Scorer: the weighted mean of its members' z-scores, or of their ranks within the sample, which lie in [0, 1]."""

    higher_is_better = True

    def __init__(
        self,
        name: str,
        members: Sequence[Scorer],
        weights: Sequence[float],
        combine: str,
        sample: str,
        table: np.ndarray,
        spread: np.ndarray,
    ):
        """`sample`: digest of the reference images, which stands for what was measured on them: the last bits
        differ between kinds of CPU. `table`: members x N, each row the sample's sorted scores; `spread`: members.
        """
        self.name, self.members, self.combine = name, list(members), combine
        self.weights = np.array(weights, dtype=np.float64) / sum(weights)
        self.table, self.spread = np.asarray(table, np.float64), np.asarray(spread, np.float64)
        for member, scale in zip(self.members, self.spread.tolist(), strict=True):
            if not 0 < scale < float("inf"):
                raise TrainingError(
                    f"scorer {member.name!r} gives the reference sample constant or non-finite scores (spread "
                    f"{scale}); it cannot choose anything: leave it out of {name!r}"
                )
        self.version = digest_of(
            {
                "revision": REVISION, "members": [member.version for member in members], "combine": combine,
                "weights": self.weights.tolist(), "sample": sample,
            }
        )  # fmt: skip

    @classmethod
    def fit(
        cls,
        name: str,
        members: Sequence[Scorer],
        weights: Sequence[float],
        combine: str,
        clean: Sequence[np.ndarray],
        degradation: str = "rain",
    ) -> Ensemble:
        """Measure each member on the reference sample of `clean`, uint8 H x W x 3 images.

        Raises DataError without clean images, TrainingError where a member's scores are constant or not finite.
        """
        if len(clean) == 0:
            raise DataError(f"ensemble {name!r} needs clean images for its reference sample, got none")
        pairs = reference_sample(clean, degradation)
        scores = np.array([[member(*pair).double().numpy() for pair in pairs] for member in members])
        within = scores - scores.mean(axis=2, keepdims=True)
        table = np.sort(scores.reshape(len(members), -1), axis=1)
        drawn = [SEED] if degradation == "rain" else [SEED, degradation]
        sample = digest_of([*drawn, *(content_id(clean[index]) for index in _chosen(clean))])
        return cls(name, members, weights, combine, sample, table, np.sqrt(np.square(within).mean(axis=(1, 2))))

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor:
        """Output and rainy B x 3 x H x W in [0,1] to B scores."""
        scores = np.stack([member(output, rainy).double().numpy() for member in self.members])
        scores = self._ranks(scores) if self.combine == "rank" else scores / self.spread[:, None]
        return torch.from_numpy(self.weights @ scores).float()

    def _ranks(self, scores: np.ndarray) -> np.ndarray:
        """Place within the sample, interpolated; beyond its ends a trace of the z-score keeps the order."""
        places = np.linspace(0, 1, self.table.shape[1])
        ranks = np.stack([np.interp(row, table, places) for row, table in zip(scores, self.table, strict=True)])
        return ranks + 1e-3 * np.tanh(scores / self.spread[:, None])


def reference_sample(clean: Sequence[np.ndarray], degradation: str = "rain") -> list[tuple[Tensor, Tensor]]:
    """For each of at most 16 images, evenly spread: candidates K x 3 x h x w and as many copies of the rainy image."""
    sample = []
    for index in _chosen(clean):
        image = _centre(to_tensor(np.ascontiguousarray(clean[index])))
        rainy = DEGRADATIONS[degradation].draw(image, (SEED, index))
        sample.append((_candidates(image, rainy), rainy.expand(CANDIDATES, -1, -1, -1)))
    return sample


def _chosen(clean: Sequence[np.ndarray]) -> list[int]:
    return np.unique(np.linspace(0, len(clean) - 1, min(len(clean), IMAGES)).round().astype(int)).tolist()


def _candidates(clean: Tensor, rainy: Tensor) -> Tensor:
    """Nine outputs of one image: rain left by quarters, light and strong blur, a colour cast, scene taken away."""
    rain = rainy - clean
    smooth = low_pass(clean, 5, 0.8)
    cast = torch.tensor([0.03, 0.0, -0.03], device=clean.device).view(1, 3, 1, 1)
    made = [rainy, *(clean + share * rain for share in (0.75, 0.5, 0.25, 0.1)), clean, smooth,
            low_pass(clean, 9, 1.6), clean + cast]  # fmt: skip
    return torch.cat(made).clamp(0, 1)


def _centre(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    return image[..., top : top + SIDE, left : left + SIDE]
