"""The networks: the derainer, which is exchangeable, and the method around it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from rgsud_lib.config.methods import (
    CsudConfig,
    CycleganConfig,
    DcdganConfig,
    DerainCycleganConfig,
    MethodName,
    NlclConfig,
)
from rgsud_lib.config.section import Section
from rgsud_lib.derainer_sizes import SIZES, complete


class DerainerConfig(Section):
    """The restoration network. Its own settings, such as `width`, are those of its size where they are not given."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("nafnet", description=f"one of {', '.join(SIZES)}")
    size: str = Field("published", description="published, tiny (for a CPU) or mini (for the demo)")

    @model_validator(mode="before")
    @classmethod
    def complete_arguments(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        own = {key: value for key, value in document.items() if key not in cls.model_fields}
        name, size = document.get("name", "nafnet"), document.get("size", "published")
        return {"name": name, "size": size, **complete(name, size, own)}

    @property
    def arguments(self) -> dict[str, Any]:
        """What the network is built with."""
        return dict(self.model_extra or {})


class MethodConfig(Section):
    """The method, its other networks and loss weights (RGSUD: paper section 3; what it leaves open is `ours`).

    A method takes of these what it has: `docs/method.md` says which.
    """

    name: MethodName = "rgsud"
    unet_width: int = Field(32, ge=4, description="degradation estimation U-Net: channels at full resolution")
    unet_depth: int = Field(4, ge=1, le=6)
    generator_width: int = Field(64, ge=4, description="rain generator: channels")
    generator_blocks: int = Field(6, ge=1)
    discriminator_width: int = Field(64, ge=4, description="PatchGAN: channels of the first layer")
    discriminator_layers: int = Field(3, ge=1, le=5)
    adversarial_weight: float = Field(1.0, ge=0)
    derain_weight: float = Field(1.0, ge=0, description="weight of L_Der in L_s1 (paper: 1.0)")
    ssim_weight: float = Field(1.0, ge=0, description="weight of L_SSIM inside L_Der")
    pixel_loss: Literal["psnr", "l1", "l1_mse"] = Field(
        "psnr", description="form of L_PSNR: negative PSNR (NAFNet), L1, or half L1 and half 30 times squared error"
    )
    achromatic_weight: float = Field(10.0, ge=0, description="channel consistency of the generated rain (CSUD: 10)")
    degradation_weight: float = Field(
        1.0, ge=0, description="ours: the U-Net is also trained on images whose rain is known"
    )
    discriminator_fake: Literal["pseudo_rainy", "same_scene"] = Field(
        "pseudo_rainy",
        description="fake that D trains on: G(B_u, F(O_r)) as CSUD, or ours: rain of another image on derained O_r",
    )
    correction_weight: float = Field(
        0.0, ge=0, description="ours: L1 that keeps G near the plain transplant of the rain it was given"
    )
    adversarial_every: int = Field(
        1, ge=1, description="ours: steps between updates of G, the U-Net and D (cyclegan and its kin, nlcl: each step)"
    )
    rain_prior: Literal["none", "achromatic"] = Field(
        "none", description="ours: F keeps only light that is added to all channels alike"
    )
    rain_floor: float = Field(
        0.015, ge=0, description="with that prior, weaker rain than this counts as none ([0,1] scale)"
    )
    rain_jitter: float = Field(0.0, ge=0, lt=1, description="ours: random gain 1 +- this on the transplanted rain")
    clean_share: float = Field(
        0.0, ge=0, lt=1, description="ours: share of pseudo-pairs that are a clean crop itself (do no harm)"
    )
    csud: CsudConfig = CsudConfig()
    cyclegan: CycleganConfig = CycleganConfig()
    derain_cyclegan: DerainCycleganConfig = DerainCycleganConfig()
    dcdgan: DcdganConfig = DcdganConfig()
    nlcl: NlclConfig = NlclConfig()

    @property
    def others(self) -> set[str]:
        """The sections of methods that are not in use: they change no result."""
        return (set(get_args(MethodName)) - {self.name}) & set(type(self).model_fields)
