"""NLCL (CVPR 2022, arXiv 2203.11509): decomposition into two layers, told apart by non-local contrast.

| paper | here          | meaning                                                                       |
|-------|---------------|-------------------------------------------------------------------------------|
| O, Y  | rainy, clean  | unpaired crops of the two domains                                             |
| B     | restored      | image layer of O, by the derainer; its patches are alike among themselves     |
| R     | rain          | rain layer of O, O minus the rain network's output; likewise, and unlike B's  |
| D     | discriminator | PatchGAN on image layers; also the encoder in which layers are contrasted     |

The losses and weights are those of its released code (nlcl_model.py): GAN(B) + location contrast of O, B and of Y,
B(Y) (mean) + layer contrast + ||B + R - O||^2 + 0.1 |O - B|_1. Location contrast is DCD-GAN's PatchNCE; layer contrast
takes the patches most like an anchor (self-similarity), where CUT and DCD-GAN take any. Ours: an encoder for location
contrast (`networks/patch_encoder.py`, any derainer can be put in); anchors spread evenly, where the original draws
one; similarity over the whole crop, no search window; features of D itself, no projection of them; R starts as the
image's fine detail (`networks/unet.py`), so that there is something to contrast from the first step; least squares.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.config import Config
from rgsud_lib.losses import layer_contrast_loss, lsgan_discriminator_loss, lsgan_loss, patch_nce_loss
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.cyclegan import RANGE
from rgsud_lib.methods.method import Method, Update, Updates, frozen
from rgsud_lib.networks.patch_encoder import PatchEncoder
from rgsud_lib.networks.patchgan import PatchGAN
from rgsud_lib.networks.unet import UNet


class NLCL(Method):
    """Derainer, rain network, an encoder of patches, and a D of image layers."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.own = self.config.nlcl
        self.rain_network = UNet(self.config.unet_width, self.config.unet_depth)
        self.encoder = PatchEncoder(self.own.encoder_width, self.own.features, self.own.patches)
        self.discriminator = PatchGAN(self.config.discriminator_width, self.config.discriminator_layers)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        decomposing = self.derainer, self.rain_network, self.encoder
        return {
            "derainer": [weight for network in decomposing for weight in network.parameters()],
            "discriminator": list(self.discriminator.parameters()),
        }

    def updates(self, batch: Batch, adversarial: bool) -> Updates:
        """The decomposition's and D's; `adversarial` changes nothing: all losses are due always."""
        restored, rain = self.derain(batch.rainy), batch.rainy - self.rain_network(batch.rainy)
        yield Update("derainer", self.decomposition_losses(batch, restored, rain), restored)
        loss = lsgan_discriminator_loss(self.discriminator, batch.clean, restored)
        yield Update("discriminator", {"discriminator": loss})

    def decomposition_losses(self, batch: Batch, restored: Tensor, rain: Tensor) -> dict[str, Tensor]:
        """L_G of the released code."""
        own = self.own
        with frozen(self.discriminator):
            adversarial = self.config.adversarial_weight * lsgan_loss(self.discriminator(restored), real=True)
            layers = own.layer_weight * self.layer_contrast(restored, rain)
        return {
            "adversarial": adversarial,
            "location": own.location_weight * self.location_contrast(batch, restored),
            "layers": layers,
            "consistency": own.consistency_weight * RANGE**2 * F.mse_loss(restored + rain, batch.rainy),
            "sparsity": own.sparsity_weight * RANGE * F.l1_loss(restored, batch.rainy),
        }

    def location_contrast(self, batch: Batch, restored: Tensor) -> Tensor:
        """A patch of B is that of O at its place, and no other of O; the same of B(Y) and Y; mean over the levels."""
        pairs = (restored, batch.rainy), (self.derain(batch.clean), batch.clean)
        levels = [level for pair in pairs for level in zip(*map(self.encoder, pair), strict=True)]
        return sum(patch_nce_loss(*level, self.own.temperature) for level in levels) / len(levels)

    def layer_contrast(self, restored: Tensor, rain: Tensor) -> Tensor:
        """Similar patches of B against similar patches of R, in each level of D; mean over the levels."""
        images = similar_patches(restored, self.own.patch, self.own.anchors, self.own.similar)
        drops = similar_patches(rain, self.own.patch, self.own.anchors, self.own.negatives)
        grid = patch_grid(restored, self.own.patch)
        pairs = zip(self.discriminator.features(restored), self.discriminator.features(rain), strict=True)
        losses = [
            layer_contrast_loss(gathered(image, grid, images), gathered(drop, grid, drops), self.own.temperature)
            for image, drop in pairs
        ]
        return sum(losses) / len(losses)


def patch_grid(layer: Tensor, side: int) -> tuple[int, int]:
    """How many patches of that side, overlapping by half, lie below and beside each other."""
    height, width = (max(1, (length - side) // (side // 2) + 1) for length in layer.shape[-2:])
    return height, width


def similar_patches(layer: Tensor, side: int, anchors: int, count: int) -> Tensor:
    """Places in the grid of the `count` patches most like each anchor, itself among them: B x anchors x count.

    Likeness is the squared distance of pixels. No gradient. Where there are fewer places, all of them; the anchors
    are spread evenly over the grid.
    """
    patches = F.unfold(layer.detach().float(), side, stride=side // 2).transpose(1, 2)
    places = patches.shape[1]
    chosen = patches[:, :: -(-places // anchors)]
    # The square of the anchor itself is the same for all it is compared with.
    distances = patches.square().sum(2)[:, None] - 2 * chosen @ patches.transpose(1, 2)
    return distances.topk(min(count, places), dim=2, largest=False).indices


def gathered(level: Tensor, grid: tuple[int, int], places: Tensor) -> Tensor:
    """Unit feature vectors at places in the grid, B x anchors x count, of B x C x h x w: B anchors x count x C."""
    vectors = F.adaptive_avg_pool2d(level, grid).flatten(2).transpose(1, 2)
    index = places.flatten(1)[..., None].expand(-1, -1, vectors.shape[2])
    return F.normalize(vectors.gather(1, index), dim=2).view(-1, places.shape[2], vectors.shape[2])
