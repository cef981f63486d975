"""What RGSUD and CSUD share: a generator puts the rain of one scene on another, and the derainer learns on the pair."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.distributed import roll
from rgsud_lib.losses import lsgan_loss
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.method import frozen


def mix(batch: Batch, generated: Tensor) -> Tensor:
    """Pseudo-rainy crops with some replaced by drawn rain (replay) and some by the clean crop itself."""
    mixed = generated
    if batch.use_drawn is not None:
        mixed = torch.where(batch.use_drawn.view(-1, 1, 1, 1), batch.drawn, mixed)
    if batch.use_clean is not None:
        mixed = torch.where(batch.use_clean.view(-1, 1, 1, 1), batch.clean, mixed)
    return mixed


def derain_both(
    derainer: nn.Module, pseudo_rainy: Tensor, rainy: Tensor, learns: bool, needed: bool
) -> tuple[Tensor, Tensor | None]:
    """B_u1 with gradient; B_r with gradient where the derainer `learns` from it, without where only `needed`."""
    if learns:
        derained_pseudo, restored = derainer(torch.cat([pseudo_rainy, rainy])).chunk(2)
        return derained_pseudo, restored
    restored = None
    if needed:
        with torch.no_grad():
            restored = derainer(rainy)
    return derainer(pseudo_rainy), restored


def fool(discriminator: nn.Module, fakes: Tensor, weight: float) -> Tensor:
    """L_adv of a generator: the sum over four fakes (stacked, 4B x 3 x H x W) that should be judged real."""
    with frozen(discriminator):
        return 4 * weight * lsgan_loss(discriminator(fakes), real=True)


def four_fakes(
    generator: nn.Module, generated: Tensor, restored: Tensor, derained: Tensor, rain: Tensor, pseudo_rain: Tensor
) -> Tensor:
    """G(B_u, rain of O_r), given as `generated`, G(B_r, rain of O_r), G(B_r, rain of O_u1), G(B_u1, rain of O_u1).

    As in CSUD and SCPGabNet (ICCV 2023). The derained images are data: else the derainer could please D by
    leaving rain in.
    """
    restored, derained = restored.detach().clamp(0, 1), derained.detach().clamp(0, 1)
    others = generator(torch.cat([restored, restored, derained]), torch.cat([rain, pseudo_rain, pseudo_rain]))
    return torch.cat([generated, others])


def judged_fake(kind: str, generator: nn.Module, generated: Tensor, restored: Tensor, rain: Tensor) -> Tensor:
    """What D learns to tell from O_r: the first fake, or (ours, "same_scene") another O_r's rain on the derained O_r.

    The first fake shows other scenes than O_r, and D may learn the scenes in place of the rain.
    """
    if kind != "same_scene":
        return generated.detach()
    with torch.no_grad():
        return generator(restored.clamp(0, 1), roll(rain))
