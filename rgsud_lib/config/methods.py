"""Settings that only one of the methods has: a section of its own below `method`, named as the method is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rgsud_lib.config.section import Section

MethodName = Literal["rgsud", "csud", "cyclegan", "dcdgan"]


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
