"""DerainCycleGAN (TIP 2021, arXiv 1912.07015): CycleGAN whose generators pay attention to a mask of the rain.

| paper    | here             | meaning                                                            |
|----------|------------------|--------------------------------------------------------------------|
| r, n     | rainy, clean     | unpaired crops of the two domains                                  |
| U-ARSE   | attention        | rain streaks of an image: of r the rain, of n nothing              |
| A_r, A_n | rain, nothing    | U-ARSE(r), U-ARSE(n), one channel                                  |
| G_N      | derainer         | rainy to rain-free                                                 |
| G_R      | generator        | puts the rain of a mask on a rain-free image                       |
| D_N, D_R | clean_discriminator, rain_discriminator | PatchGANs with least squares (`cyclegan.py`) |

The losses and weights are those of its released code (github.com/OaDsis/DerainCycleGAN, src/model.py): GAN_N + GAN_R
+ 10 cycle + 10 consistency + 10 attention. Its perceptual loss is left out: there both of its sides are detached, so
nothing is learnt from it. Ours: the derainer is not given the mask, so that any can be put in and exported alone; the
mask reaches it through the consistency and through G_R. G_R is given the mask of the rainy crop, as when that code
makes rain; in training it is given the one of its own input, which is near zero and tells no rain from another. G_R
is RGSUD's, which starts as image + mask. No buffer of older fakes, as in `cyclegan.py`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.config import Config
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.cyclegan import RANGE, CycleGAN
from rgsud_lib.methods.method import Update, Updates
from rgsud_lib.networks.rain_attention import RainAttention
from rgsud_lib.networks.rain_generator import RainGenerator


class DerainCycleGAN(CycleGAN):
    """CycleGAN's players and the attention."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.own = self.config.derain_cyclegan
        self.generator = RainGenerator(self.config.generator_width, self.config.generator_blocks)
        self.attention = RainAttention(self.own.attention_width, self.own.attention_passes)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        groups = super().groups()
        groups["derainer"] += list(self.attention.parameters())
        return groups

    def updates(self, batch: Batch, adversarial: bool) -> Updates:
        """As CycleGAN's, all of them in every step."""
        rain = self.attention(batch.rainy)
        restored, pseudo_rainy = self.derain(batch.rainy), self.rain_on(batch.clean, rain)
        yield Update("derainer", self.attentive_losses(batch, rain, restored, pseudo_rainy), restored)
        yield Update("discriminator", {"discriminator": self.discriminator_loss(batch, restored, pseudo_rainy)})

    def rain_on(self, scenes: Tensor, rain: Tensor) -> Tensor:
        """G_R: rain-free scenes, B x 3 x H x W, with the rain of a mask, B x 1 x H x W."""
        return self.generator(scenes, rain.expand_as(scenes))

    def attentive_losses(self, batch: Batch, rain: Tensor, restored: Tensor, pseudo_rainy: Tensor) -> dict[str, Tensor]:
        """The sum that the released code minimises for G_N, G_R and U-ARSE."""
        return {
            "adversarial": self.adversarial_loss(restored, pseudo_rainy),
            "cycle": self.cycle_loss(batch, self.rain_on(restored, rain), self.derain(pseudo_rainy)),
            "consistency": self.consistency_loss(batch, rain, restored),
            "attention": self.attention_loss(batch),
        }

    def consistency_loss(self, batch: Batch, rain: Tensor, restored: Tensor) -> Tensor:
        """||A_r + G_N(r) - r||^2 (released code: loss_cons): what the derainer takes away is what the mask shows."""
        return self.own.consistency_weight * RANGE**2 * F.mse_loss(rain + restored, batch.rainy)

    def attention_loss(self, batch: Batch) -> Tensor:
        """||A_n||^2 (released code: loss_att_b): a rain-free image has no rain to pay attention to."""
        nothing = self.attention(batch.clean)
        return self.own.attention_weight * RANGE**2 * nothing.square().mean()
