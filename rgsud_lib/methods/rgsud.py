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

from rgsud_lib.config import Config, MethodConfig
from rgsud_lib.distributed import roll
from rgsud_lib.losses import achromatic_loss, l1_mse_loss, lsgan_loss, negative_psnr, ssim_loss
from rgsud_lib.networks import build_derainer
from rgsud_lib.networks.patchgan import PatchGAN
from rgsud_lib.networks.rain_generator import RainGenerator
from rgsud_lib.networks.unet import UNet

PIXEL_LOSSES = {"psnr": negative_psnr, "l1": F.l1_loss, "l1_mse": l1_mse_loss}


@dataclass
class Batch:
    """Crops of one step, each B x 3 x H x W in [0,1]; `reward` None means stage 1 (the switch is on the U-Net)."""

    clean: Tensor
    rainy: Tensor
    drawn: Tensor | None = None  # clean + drawn rain, where the warm start or its replay is on
    use_drawn: Tensor | None = None  # B booleans: which pseudo-pairs are drawn instead of generated
    use_clean: Tensor | None = None  # B booleans: which pseudo-pairs are the clean crop itself (do no harm)
    gain: Tensor | None = None  # B factors on the transplanted rain
    reward: Tensor | None = None


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


class RGSUD(nn.Module):
    """The four networks and their losses; `derain` is all that inference needs."""

    def __init__(self, config: Config):
        super().__init__()
        self.config: MethodConfig = config.method
        self.derainer = build_derainer(config.derainer)
        self.unet = UNet(self.config.unet_width, self.config.unet_depth)
        self.generator = RainGenerator(self.config.generator_width, self.config.generator_blocks)
        self.discriminator = PatchGAN(self.config.discriminator_width, self.config.discriminator_layers)

    def derain(self, images: Tensor) -> Tensor:
        return self.derainer(images)

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
        pseudo_rainy = self._mixture(batch, generated.detach().clamp(0, 1))
        derained_pseudo, restored = self._derain_both(batch, pseudo_rainy, train_generator)
        return Outputs(rain, source, generated, pseudo_rainy, derained_pseudo, restored)

    def derainer_losses(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        """L_Der = L_PSNR(B_u, B_u1) + L_SSIM(B_u, B_u1), paper section 3.2."""
        return {"derain": self.config.derain_weight * self.reconstruction(out.derained_pseudo, batch.clean)}

    def reconstruction(self, output: Tensor, target: Tensor) -> Tensor:
        """L_PSNR + weighted L_SSIM in the configured form."""
        pixel = PIXEL_LOSSES[self.config.pixel_loss](output, target)
        return pixel + self.config.ssim_weight * ssim_loss(output, target)

    def generator_losses(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        """L_adv of G and the U-Net, four fakes judged by the rain-domain D, and what keeps the rain rain.

        The fakes (as in CSUD and SCPGabNet): G(B_u, F(O_r)), G(B_r, F(O_r)), G(B_r, F(O_u1)), G(B_u1, F(O_u1)).
        """
        pseudo_rain = self.degradation(out.pseudo_rainy, None if batch.reward is None else batch.clean)
        restored, derained = out.restored.detach().clamp(0, 1), out.derained_pseudo.detach().clamp(0, 1)
        others = self.generator(
            torch.cat([restored, restored, derained]), torch.cat([out.rain, pseudo_rain, pseudo_rain])
        )
        fakes = torch.cat([out.generated, others])
        losses = {"adversarial": 4 * self.config.adversarial_weight * lsgan_loss(self.discriminator(fakes), real=True)}
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
        if self.config.discriminator_fake == "same_scene":
            with torch.no_grad():
                fake = self.generator(out.restored.clamp(0, 1), roll(out.rain))
        else:
            fake = out.generated.detach()
        decisions = self.discriminator(torch.cat([batch.rainy, fake.detach()]))
        real, false = decisions.chunk(2)
        return (lsgan_loss(real, real=True) + lsgan_loss(false, real=False)) / 2

    def _mixture(self, batch: Batch, generated: Tensor) -> Tensor:
        """Pseudo-rainy crops with some replaced by drawn rain (replay) and some by the clean crop itself."""
        mixed = generated
        if batch.use_drawn is not None:
            mixed = torch.where(batch.use_drawn.view(-1, 1, 1, 1), batch.drawn, mixed)
        if batch.use_clean is not None:
            mixed = torch.where(batch.use_clean.view(-1, 1, 1, 1), batch.clean, mixed)
        return mixed

    def _derain_both(self, batch: Batch, pseudo_rainy: Tensor, for_generator: bool) -> tuple[Tensor, Tensor | None]:
        """B_u1 with gradient; B_r with gradient where a reward pulls it, without for G, else not at all."""
        if batch.reward is not None:
            derained_pseudo, restored = self.derainer(torch.cat([pseudo_rainy, batch.rainy])).chunk(2)
            return derained_pseudo, restored
        restored = None
        if for_generator:
            with torch.no_grad():
                restored = self.derainer(batch.rainy)
        return self.derainer(pseudo_rainy), restored
