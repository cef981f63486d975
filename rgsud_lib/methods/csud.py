"""CSUD (CVPR 2025): channel consistency prior and self-reconstruction, RGSUD's predecessor.

| paper     | here            | meaning                                                |
|-----------|-----------------|--------------------------------------------------------|
| B_u, O_r  | clean, rainy    | unpaired clean and rainy crops                         |
| G(B, O)   | generator       | puts the rain that image O shows on the clean image B  |
| O_u1      | pseudo_rainy    | G(B_u, O_r)                                            |
| B_u1, B_r | derained_pseudo, restored | Derainer(O_u1), Derainer(O_r)                |
| d         | difference      | B_u - O_u1, the same in all channels: rain has no colour |

It has no degradation U-Net: G reads the rain off the image itself. So rewards turn no switch in it, and
self-reinforcement only pulls its derainer. Chosen here, where our sources are silent: what the perceptual loss
compares (B_u1 and B_u, at relu3_3), and who gets whose gradients (as in RGSUD, and as each loss says).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.config import Config
from rgsud_lib.distributed import roll
from rgsud_lib.losses import achromatic_loss, lsgan_discriminator_loss
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.method import Method, Update, Updates, frozen
from rgsud_lib.methods.pseudo_pairs import derain_both, fool, four_fakes, judged_fake, mix
from rgsud_lib.networks.feature_generator import FeatureGenerator
from rgsud_lib.networks.patchgan import PatchGAN
from rgsud_lib.networks.vgg import PerceptualLoss


@dataclass
class Outputs:
    """What one step computes once and its losses share; `restored` only where a loss wants it."""

    generated: Tensor
    pseudo_rainy: Tensor
    derained_pseudo: Tensor
    restored: Tensor | None


class CSUD(Method):
    """Derainer, G and a rain-domain D."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.own = self.config.csud
        self.generator = FeatureGenerator(2, self.config.generator_width, self.config.generator_blocks)
        self.discriminator = PatchGAN(self.config.discriminator_width, self.config.discriminator_layers)
        self.perceptual = PerceptualLoss(self.own.vgg_weights) if self.own.perceptual_weight else None

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: list(getattr(self, name).parameters()) for name in ("derainer", "generator", "discriminator")}

    def warm_start(self, batch: Batch) -> Updates:
        """Also of G (ours): drawn rain is put on another scene, as it is. Else G, which starts at the identity, adds
        nothing for long, and pairs without rain teach a derainer that knows rain already to leave it in.
        """
        yield from super().warm_start(batch)
        scene = roll(batch.clean)
        rained = (scene + batch.drawn - batch.clean).clamp(0, 1)
        yield Update("generator", {"transplant": self.reconstruction(self.generator(scene, batch.drawn), rained)})

    def updates(self, batch: Batch, adversarial: bool) -> Updates:
        """The derainer's and, where due, those of G and D."""
        out = self(batch, train_generator=adversarial)
        yield Update("derainer", self.derainer_losses(batch, out), out.restored)
        if adversarial:
            yield Update("generator", self.generator_losses(batch, out))
            yield Update("discriminator", {"discriminator": self.discriminator_loss(batch, out)})

    def forward(self, batch: Batch, train_generator: bool = True) -> Outputs:
        with torch.set_grad_enabled(train_generator):
            generated = self.generator(batch.clean, batch.rainy)
        pseudo_rainy = mix(batch, generated.detach().clamp(0, 1))
        learns = batch.reward is not None or self.own.derainer_reconstruction_weight > 0
        derained_pseudo, restored = derain_both(self.derainer, pseudo_rainy, batch.rainy, learns, train_generator)
        return Outputs(generated, pseudo_rainy, derained_pseudo, restored)

    def derainer_losses(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        """L_Der on the pseudo-pair (as in RGSUD), self-reconstruction, and the perceptual loss where it is on."""
        losses = {"derain": self.config.derain_weight * self.reconstruction(out.derained_pseudo, batch.clean)}
        if weight := self.own.derainer_reconstruction_weight:
            with frozen(self.generator):
                loss = self.self_reconstruction(batch.clean, out.restored, out.derained_pseudo)
            losses["derainer_reconstruction"] = weight * loss
        if self.perceptual:
            losses["perceptual"] = self.own.perceptual_weight * self.perceptual(out.derained_pseudo, batch.clean)
        return losses

    def generator_losses(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        """L_adv (four fakes), channel consistency L1(d_R,d_G) + L1(d_G,d_B) + L1(d_B,d_R), self-reconstruction."""
        fakes = four_fakes(
            self.generator, out.generated, out.restored, out.derained_pseudo, batch.rainy, out.pseudo_rainy
        )
        losses = {"adversarial": fool(self.discriminator, fakes, self.config.adversarial_weight)}
        if self.config.achromatic_weight:
            difference = batch.clean - out.generated
            losses["achromatic"] = self.config.achromatic_weight * achromatic_loss(difference)
        if weight := self.own.reconstruction_weight:
            sources = batch.clean, out.restored.detach(), out.derained_pseudo.detach()
            losses["generator_reconstruction"] = weight * self.self_reconstruction(batch.clean, *sources)
        return losses

    def self_reconstruction(self, clean: Tensor, *sources: Tensor) -> Tensor:
        """Sum over rain-free sources of L1(G(B_u, source), B_u): what shows no rain must add none.

        On G the sources B_u, B_r, B_u1 are data. On the derainer G is: where G finds rain in B_r or B_u1, the
        derainer left it there.
        """
        copies = torch.cat([clean] * len(sources))
        return len(sources) * F.l1_loss(self.generator(copies, torch.cat(sources)), copies)

    def discriminator_loss(self, batch: Batch, out: Outputs) -> Tensor:
        """LSGAN: O_r is real, the first fake is not; or (ours, as in RGSUD) one on O_r's own derained scene."""
        fake = judged_fake(self.config.discriminator_fake, self.generator, out.generated, out.restored, batch.rainy)
        return lsgan_discriminator_loss(self.discriminator, batch.rainy, fake)
