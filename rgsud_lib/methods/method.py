"""What a method is to the loop: a derainer, groups of weights, and the losses of each group in the order of updates.

Self-reinforcement is wrapped around it (`training/steps.py`): a method is told of rewards by `Batch.reward` alone,
and may ignore even that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from rgsud_lib.config import Config, MethodConfig
from rgsud_lib.losses import reconstruction_loss
from rgsud_lib.methods.batch import Batch
from rgsud_lib.networks import build_derainer


class Update(NamedTuple):
    """One update: scalars to minimise, summed, by the optimiser of `group`.

    `restored`, B x 3 x H x W, is the derainer's output for `Batch.rainy` where the method has it at hand, with
    gradient where there are rewards; else self-reinforcement makes its own.
    """

    group: str
    losses: dict[str, Tensor]
    restored: Tensor | None = None


Updates = Iterator[Update]


class Method(nn.Module, ABC):
    """The base of all methods. Its networks are drawn from torch's generator, the derainer's first."""

    def __init__(self, config: Config):
        super().__init__()
        self.config: MethodConfig = config.method
        self.derainer = build_derainer(config.derainer)

    def derain(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0,1] to the restored images, not clamped."""
        return self.derainer(images)

    @abstractmethod
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The weights of each optimiser. Group "derainer" holds the derainer's."""

    @abstractmethod
    def updates(self, batch: Batch, adversarial: bool) -> Updates:
        """A step. Each update is computed after the one before it was made, so nothing stale is learnt from.

        `adversarial` says whether what need not be trained in every step is due (`method.adversarial_every`).
        """

    def warm_start(self, batch: Batch) -> Updates:
        """A step of the warm start (ours): supervised on drawn rain."""
        yield Update("derainer", {"derain": self.reconstruction(self.derain(batch.drawn), batch.clean)})

    def reconstruction(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of a restored image from its clean one, in the configured form."""
        return reconstruction_loss(output, target, self.config.pixel_loss, self.config.ssim_weight)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Within, what these networks compute passes gradients on to its inputs, but leaves none in their weights."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
