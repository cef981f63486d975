"""CycleGAN (Zhu et al., ICCV 2017, arXiv 1703.10593) between rainy and clean images.

| paper    | here                | meaning                                    |
|----------|---------------------|--------------------------------------------|
| x, y     | rainy, clean        | unpaired crops of the two domains          |
| G: X->Y  | derainer            | the exchangeable one                       |
| F: Y->X  | generator           | puts rain on a clean image                 |
| G(x)     | restored            | also what self-reinforcement pulls         |
| F(y)     | pseudo_rainy        |                                            |
| D_Y, D_X | clean_discriminator, rain_discriminator | PatchGANs with least squares (section 4) |

The networks are ours in size and kind (`networks/`): full resolution, identity at the start, high-pass in D. There
is no buffer of older fakes for the discriminators (section 4): it would be one more state to save and to share
between processes. G and F are updated together, then D_X and D_Y; all of them in every step. It has no pseudo-pairs
in which drawn rain could be replayed after the warm start.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.config import Config
from rgsud_lib.losses import lsgan_discriminator_loss, lsgan_loss
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.method import Method, Update, Updates, frozen
from rgsud_lib.networks.feature_generator import FeatureGenerator
from rgsud_lib.networks.patchgan import PatchGAN

# The paper's images are in [-1,1], ours in [0,1]: an L1 distance there is twice as large.
RANGE = 2.0


class CycleGAN(Method):
    """Two generators, one of which is the derainer, and two discriminators."""

    # The two sides of the adversarial game, of one discriminator (section 4).
    fooling, telling_apart = staticmethod(partial(lsgan_loss, real=True)), staticmethod(lsgan_discriminator_loss)

    def __init__(self, config: Config):
        super().__init__(config)
        self.own = self.config.cyclegan
        size = self.config.discriminator_width, self.config.discriminator_layers
        self.generator = FeatureGenerator(1, self.config.generator_width, self.config.generator_blocks)
        self.clean_discriminator, self.rain_discriminator = PatchGAN(*size), PatchGAN(*size)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "derainer": [*self.derainer.parameters(), *self.generator.parameters()],
            "discriminator": [*self.clean_discriminator.parameters(), *self.rain_discriminator.parameters()],
        }

    def updates(self, batch: Batch, adversarial: bool) -> Updates:
        """The generators' and the discriminators'; `adversarial` changes nothing: all losses are due always."""
        restored, pseudo_rainy = self.derain(batch.rainy), self.generator(batch.clean)
        yield Update("derainer", self.generator_losses(batch, restored, pseudo_rainy), restored)
        yield Update("discriminator", {"discriminator": self.discriminator_loss(batch, restored, pseudo_rainy)})

    def generator_losses(self, batch: Batch, restored: Tensor, pseudo_rainy: Tensor) -> dict[str, Tensor]:
        """L(G, F, D_X, D_Y), equation 3, and the identity loss."""
        losses = {
            "adversarial": self.adversarial_loss(restored, pseudo_rainy),
            "cycle": self.cycle_loss(batch, self.generator(restored), self.derain(pseudo_rainy)),
        }
        if self.own.identity_weight:
            losses["identity"] = self.identity_loss(batch)
        return losses

    def adversarial_loss(self, restored: Tensor, pseudo_rainy: Tensor) -> Tensor:
        """The generators' part of equation 1, (D_Y(G(x)) - 1)^2 and (D_X(F(y)) - 1)^2 (section 4)."""
        with frozen(self.clean_discriminator, self.rain_discriminator):
            clean = self.fooling(self.clean_discriminator(restored))
            rain = self.fooling(self.rain_discriminator(pseudo_rainy))
        return self.config.adversarial_weight * (clean + rain)

    def cycle_loss(self, batch: Batch, rainy: Tensor, clean: Tensor) -> Tensor:
        """lambda * (|F(G(x)) - x|_1 + |G(F(y)) - y|_1), equation 2, of the reconstructions F(G(x)) and G(F(y))."""
        return RANGE * self.own.cycle_weight * (F.l1_loss(rainy, batch.rainy) + F.l1_loss(clean, batch.clean))

    def identity_loss(self, batch: Batch) -> Tensor:
        """|G(y) - y|_1 + |F(x) - x|_1, section 5.2: no change to what already is in the domain."""
        clean, rainy = self.derain(batch.clean), self.generator(batch.rainy)
        return RANGE * self.own.identity_weight * (F.l1_loss(clean, batch.clean) + F.l1_loss(rainy, batch.rainy))

    def discriminator_loss(self, batch: Batch, restored: Tensor, pseudo_rainy: Tensor) -> Tensor:
        """D(real) towards 1 and D(fake) towards 0, halved (section 4), for D_Y and D_X."""
        clean = self.telling_apart(self.clean_discriminator, batch.clean, restored)
        return clean + self.telling_apart(self.rain_discriminator, batch.rainy, pseudo_rainy)
