"""DCD-GAN (CVPR 2022, arXiv 2109.02973): CycleGAN's networks, held together by contrast instead of cycles.

| paper    | here                 | meaning                                         |
|----------|----------------------|-------------------------------------------------|
| x, y     | rainy, clean         | unpaired crops of the two domains               |
| G_A, G_B | derainer, generator  | rainy to clean, clean to rainy                  |
| F1, F2   | rain_encoder, clean_encoder | features of patches of either domain     |
| D_A, D_B | clean_discriminator, rain_discriminator | PatchGANs with the hinge loss |

Its released code (github.com/cschenxiang/DCD-GAN, dcd_model.py) minimises
(GAN_A + GAN_B) / 2 + 2 * (NCE_1 + NCE_2) / 2 + (identity_A + identity_B) / 2; so do we. What the paper has besides,
it computes and leaves out: cycle consistency, its form by colour channels (the same L1, once more) and its form by
frequency. They are options here, off, and compare an image with its own reconstruction; the released lines compare
images of different scenes. Ours besides: the encoders, and D after G (`networks/patch_encoder.py`, `cyclegan.py`).
"""

from __future__ import annotations

from torch import Tensor, nn

from rgsud_lib.config import Config
from rgsud_lib.losses import frequency_loss, hinge_discriminator_loss, hinge_generator_loss, patch_nce_loss
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.cyclegan import CycleGAN
from rgsud_lib.networks.patch_encoder import PatchEncoder


class DCDGAN(CycleGAN):
    """Two generators, one of which is the derainer, two discriminators, two encoders."""

    fooling, telling_apart = staticmethod(hinge_generator_loss), staticmethod(hinge_discriminator_loss)

    def __init__(self, config: Config):
        super().__init__(config)
        self.own = self.config.dcdgan
        size = self.own.encoder_width, self.own.features, self.own.patches
        self.rain_encoder, self.clean_encoder = PatchEncoder(*size), PatchEncoder(*size)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        groups = super().groups()
        groups["derainer"] += [*self.rain_encoder.parameters(), *self.clean_encoder.parameters()]
        return groups

    def generator_losses(self, batch: Batch, restored: Tensor, pseudo_rainy: Tensor) -> dict[str, Tensor]:
        """L_G of the released code, and what of the paper is switched on."""
        losses = {
            "adversarial": self.adversarial_loss(restored, pseudo_rainy) / 2,
            "contrast": self.own.contrast_weight * self.contrast_loss(batch, restored, pseudo_rainy) / 2,
        }
        if self.own.identity_weight:
            losses["identity"] = self.identity_loss(batch) / 2
        if self.own.cycle_weight or self.own.frequency_weight:
            losses |= self.reconstruction_losses(batch, self.generator(restored), self.derain(pseudo_rainy))
        return losses

    def reconstruction_losses(self, batch: Batch, rainy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Of the reconstructions G_B(G_A(x)) and G_A(G_B(y)): L1, and the squared distance of their spectra."""
        losses = {}
        if self.own.cycle_weight:
            losses["cycle"] = self.cycle_loss(batch, rainy, clean)
        if weight := self.own.frequency_weight:
            losses["frequency"] = weight * (frequency_loss(rainy, batch.rainy) + frequency_loss(clean, batch.clean))
        return losses

    def contrast_loss(self, batch: Batch, restored: Tensor, pseudo_rainy: Tensor) -> Tensor:
        """NCE_1 + NCE_2: a patch of a translated image is that of its source, and no other of the same image.

        Each image is seen by the encoder of the domain it is in.
        """
        pairs = (
            (self.clean_encoder(restored), self.rain_encoder(batch.rainy)),
            (self.rain_encoder(pseudo_rainy), self.clean_encoder(batch.clean)),
        )
        levels = [level for queries, keys in pairs for level in zip(queries, keys, strict=True)]
        return 2 * sum(patch_nce_loss(*level, self.own.temperature) for level in levels) / len(levels)
