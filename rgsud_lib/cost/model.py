"""What a model cost: its own stages and all that went into it, summed over the bundles that it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rgsud_lib.bundle import Bundle
from rgsud_lib.cost.spent import Spent
from rgsud_lib.stages import STAGES

STAGE_OF = {kind: stage for stage, (kind, _) in STAGES.items()}


@dataclass(frozen=True)
class StageCost:
    """One bundle's share; `earlier`: it belongs to a model that this one started from."""

    stage: str
    digest: str
    spent: tuple[Spent, ...]
    images: int = 0  # that it worked through: crops in training, outputs in the evaluation
    megapixels: float = 0.0
    earlier: bool = False


def model_cost(bundles: Iterable[Bundle]) -> list[StageCost]:
    """The stages in their order, those of earlier models first. `bundles` as `lineage.walk` has them, nearest first."""
    found: list[StageCost] = []
    for bundle in bundles:
        if stage := STAGE_OF.get(bundle.kind):
            spent = tuple(Spent.parse(line) for line in bundle.cost)
            images, megapixels = bundle.facts.get("images", 0), bundle.facts.get("megapixels", 0.0)
            earlier = any(cost.stage == stage for cost in found)
            found.append(StageCost(stage, bundle.digest, spent, images, megapixels, earlier))
    return sorted(found, key=lambda cost: (not cost.earlier, list(STAGES).index(cost.stage)))


def all_spent(costs: Iterable[StageCost]) -> list[Spent]:
    return [line for cost in costs for line in cost.spent]
