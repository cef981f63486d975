"""Settings that only one of the methods has: a section of its own below `method`, named as the method is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rgsud_lib.config.section import Section

MethodName = Literal["rgsud", "csud", "cyclegan", "derain_cyclegan", "dcdgan", "nlcl"]


class CsudConfig(Section):
    """What CSUD has besides what it shares with RGSUD."""

    reconstruction_weight: float = Field(
        5.0, ge=0, description="self-reconstruction on G: a source without rain must add nothing (CSUD: 5)"
    )
    derainer_reconstruction_weight: float = Field(
        0.5, ge=0, description="the same on the derainer: G finds no rain in what it restored (CSUD: 0.5)"
    )
    perceptual_weight: float = Field(0.0, ge=0, description="VGG19 perceptual loss (CSUD: 0.2); needs vgg_weights")
    vgg_weights: str = Field("", description="torchvision's VGG19 weights, for example vgg19-dcbb9e9d.pth; a path")

    @model_validator(mode="after")
    def weights_are_named(self) -> CsudConfig:
        if self.perceptual_weight and not self.vgg_weights:
            raise ValueError(
                f"method.csud.perceptual_weight={self.perceptual_weight} needs a VGG19: set method.csud.vgg_weights to "
                "the path of torchvision's vgg19-dcbb9e9d.pth, or the weight to 0"
            )
        return self


class CycleganConfig(Section):
    """CycleGAN's weights, for images in [-1,1] as in its paper: ours are rescaled within its losses."""

    cycle_weight: float = Field(10.0, ge=0, description="lambda of the cycle consistency (CycleGAN: 10)")
    identity_weight: float = Field(5.0, ge=0, description="identity loss (CycleGAN: half of lambda)")


class DerainCycleganConfig(Section):
    """DerainCycleGAN's weights are its released code's, for images in [-1,1] as CycleGAN's."""

    cycle_weight: float = Field(10.0, ge=0, description="lambda of the cycle consistency")
    consistency_weight: float = Field(10.0, ge=0, description="rain mask + restored image = rainy image, squared error")
    attention_weight: float = Field(10.0, ge=0, description="squared rain mask of a clean image: it has no rain")
    attention_width: int = Field(32, ge=4, description="channels of the rain attention (U-ARSE)")
    attention_passes: int = Field(6, ge=1, description="its passes, which share their weights")


class DcdganConfig(Section):
    """DCD-GAN's weights are its released code's; what that leaves out of its paper is off."""

    contrast_weight: float = Field(2.0, ge=0, description="PatchNCE, mean of both directions (released code: 2)")
    identity_weight: float = Field(
        1.0, ge=0, description="identity loss, mean of both directions, on the paper's [-1,1] scale (released code: 1)"
    )
    cycle_weight: float = Field(0.0, ge=0, description="L1 cycle consistency, sum of both directions, on that scale")
    frequency_weight: float = Field(0.0, ge=0, description="cycle consistency in the Fourier domain")
    temperature: float = Field(0.07, gt=0, description="of PatchNCE")
    encoder_width: int = Field(64, ge=4, description="encoders of patches: channels at half resolution")
    features: int = Field(256, ge=4, description="length of a patch's feature vector")
    patches: int = Field(256, ge=2, description="patches contrasted in each image and level, at most")


class NlclConfig(Section):
    """NLCL's weights are its released code's, for images in [-1,1] as CycleGAN's."""

    location_weight: float = Field(1.0, ge=0, description="PatchNCE between the image layer and its rainy image")
    layer_weight: float = Field(1.0, ge=0, description="contrast of similar image patches with rain patches")
    consistency_weight: float = Field(1.0, ge=0, description="image layer + rain layer = rainy image, squared error")
    sparsity_weight: float = Field(0.1, ge=0, description="L1 between image layer and rainy image: rain is sparse")
    temperature: float = Field(0.07, gt=0, description="of both contrasts")
    similar: int = Field(8, ge=2, description="most similar patches of the image layer, the positives of one anchor")
    negatives: int = Field(128, ge=2, description="most similar patches of the rain layer, its negatives")
    patch: int = Field(8, ge=2, description="side of the patches that are compared, pixels; they overlap by half")
    anchors: int = Field(8, ge=1, description="anchors in each crop, spread evenly")
    encoder_width: int = Field(64, ge=4, description="encoder of patches: channels at half resolution")
    features: int = Field(256, ge=4, description="length of a patch's feature vector")
    patches: int = Field(256, ge=2, description="patches contrasted in each image and level by location, at most")


class SrlDerainConfig(Section):
    """SRL-Derain, for one photograph at a time. No part of a training's configuration."""

    episodes: int = Field(100, ge=1, description="of reinforcement learning (released code: 100)")
    steps: int = Field(2, ge=1, description="actions of each pixel (released code: 15)")
    crop: int = Field(64, ge=16, description="side of the crops of an episode, pixels")
    batch: int = Field(6, ge=1, description="crops in an episode")
    max_scenery: float = Field(0.5, gt=0, lt=1, description="share of the mask that may be scenery; less finds less")
    width: int = Field(24, ge=4, description="channels of the agents' network")
    learning_rate: float = Field(5e-3, gt=0, description="at the first episode (released code: 1e-3)")
    discount: float = Field(0.99, gt=0, le=1, description="gamma (released code: 0.99)")
    entropy: float = Field(0.1, ge=0, description="beta, which keeps the policy open: its mean acts (PixelRL: 0.01)")
