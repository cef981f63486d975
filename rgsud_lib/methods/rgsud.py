"""RGSUD (arXiv 2605.00719): networks, losses, and the one switch that rewards turn.

| paper      | here            | meaning                                                          |
|------------|-----------------|------------------------------------------------------------------|
| B_u, O_r   | clean, rainy    | unpaired clean and rainy crops                                   |
| F(O_r)     | rain            | degradation: O_r - UNet(O_r), in stage 2 O_r - B_rw (the switch) |
| O_u1       | pseudo_rainy    | G(B_u, F(O_r))                                                   |
| B_u1, B_r  | derained_pseudo, restored | Derainer(O_u1), Derainer(O_r)                          |
| B_rw       | reward          | pooled reward of O_r, a constant                                 |

Open in the paper, chosen here: O_u1 is data to the derainer, and B_r, B_u1 are data to G (no
gradient either way), else the derainer could please D by leaving rain in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.config import Config
from rgsud_lib.losses import achromatic_loss, lsgan_discriminator_loss
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.method import Method, Update, Updates
from rgsud_lib.methods.pseudo_pairs import derain_both, fool, four_fakes, judged_fake, mix
from rgsud_lib.networks.patchgan import PatchGAN
from rgsud_lib.networks.rain_generator import RainGenerator
from rgsud_lib.networks.unet import UNet


@dataclass
class Outputs:
    """What one step computes once and its losses share: `rain` is F(O_r), `source` what of it G was given.

    `restored` only where a loss wants it.
    """

    rain: Tensor
    source: Tensor
    generated: Tensor
    pseudo_rainy: Tensor
    derained_pseudo: Tensor
    restored: Tensor | None


class RGSUD(Method):
    """The four networks and their losses."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.unet = UNet(self.config.unet_width, self.config.unet_depth)
        self.generator = RainGenerator(self.config.generator_width, self.config.generator_blocks)
        self.discriminator = PatchGAN(self.config.discriminator_width, self.config.discriminator_layers)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "derainer": list(self.derainer.parameters()),
            "generator": [*self.generator.parameters(), *self.unet.parameters()],
            "discriminator": list(self.discriminator.parameters()),
        }

    def warm_start(self, batch: Batch) -> Updates:
        yield from super().warm_start(batch)
        yield Update("generator", {"degradation": self.unet_loss(batch, batch.drawn)})

    def updates(self, batch: Batch, adversarial: bool) -> Updates:
        """The derainer's and, where due, those of G with the U-Net, and of D."""
        out = self(batch, train_generator=adversarial)
        yield Update("derainer", self.derainer_losses(batch, out), out.restored)
        if adversarial:
            yield Update("generator", self.generator_losses(batch, out))
            yield Update("discriminator", {"discriminator": self.discriminator_loss(batch, out)})

    def degradation(self, rainy: Tensor, clean_features: Tensor | None = None) -> Tensor:
        """F with its switch: the U-Net's clean features in stage 1, given ones (a reward) in stage 2."""
        rain = rainy - (self.unet(rainy) if clean_features is None else clean_features)
        if self.config.rain_prior == "achromatic":
            grey = rain.mean(dim=1, keepdim=True)
            rain = torch.where(grey > self.config.rain_floor, grey, 0.0).expand_as(rain)
        return rain

    def forward(self, batch: Batch, train_generator: bool = True) -> Outputs:
        with torch.set_grad_enabled(train_generator):
            rain = self.degradation(batch.rainy, batch.reward)
            source = rain if batch.gain is None else rain * batch.gain.view(-1, 1, 1, 1)
            generated = self.generator(batch.clean, source)
        pseudo_rainy = mix(batch, generated.detach().clamp(0, 1))
        derained_pseudo, restored = derain_both(
            self.derainer, pseudo_rainy, batch.rainy, learns=batch.reward is not None, needed=train_generator
        )
        return Outputs(rain, source, generated, pseudo_rainy, derained_pseudo, restored)

    def derainer_losses(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        """L_Der = L_PSNR(B_u, B_u1) + L_SSIM(B_u, B_u1), paper section 3.2."""
        return {"derain": self.config.derain_weight * self.reconstruction(out.derained_pseudo, batch.clean)}

    def generator_losses(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        """L_adv of G and the U-Net, four fakes judged by the rain-domain D, and what keeps the rain rain."""
        pseudo_rain = self.degradation(out.pseudo_rainy, None if batch.reward is None else batch.clean)
        fakes = four_fakes(self.generator, out.generated, out.restored, out.derained_pseudo, out.rain, pseudo_rain)
        losses = {"adversarial": fool(self.discriminator, fakes, self.config.adversarial_weight)}
        if self.config.achromatic_weight:
            losses["achromatic"] = self.config.achromatic_weight * achromatic_loss(out.generated - batch.clean)
        if self.config.correction_weight:
            transplant = (batch.clean + out.source).detach()
            losses["correction"] = self.config.correction_weight * F.l1_loss(out.generated, transplant)
        if self.config.degradation_weight and batch.reward is None:
            losses["degradation"] = self.config.degradation_weight * self.unet_loss(batch, out.pseudo_rainy)
        return losses

    def unet_loss(self, batch: Batch, rainy: Tensor) -> Tensor:
        """Ours: the U-Net finds the rain in an image whose rain is known."""
        return F.l1_loss(self.unet(rainy), batch.clean)

    def discriminator_loss(self, batch: Batch, out: Outputs) -> Tensor:
        """LSGAN: O_r is real, the first fake is not; or (ours) the fake on O_r's own derained scene."""
        fake = judged_fake(self.config.discriminator_fake, self.generator, out.generated, out.restored, out.rain)
        return lsgan_discriminator_loss(self.discriminator, batch.rainy, fake)
