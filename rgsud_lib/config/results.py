"""How a model is judged, exported and promoted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rgsud_lib.config.section import Section


class EvaluationConfig(Section):
    """Whole-image inference, the judge, and what the report shows."""

    judge: str = Field("niqe", description="no-reference score that judges; must not be the reward")
    tile: int = Field(1024, ge=64, description="larger images are derained in overlapping tiles of this side")
    overlap: int = Field(64, ge=0, description="pixels over which neighbouring tiles are blended")
    mirror: bool = Field(False, description="derain as the mean over an image and its mirror image: twice the time")
    strips: int = Field(8, ge=1, description="image strips in the report")

    @model_validator(mode="after")
    def overlap_fits(self) -> EvaluationConfig:
        if 2 * self.overlap >= self.tile:
            raise ValueError(
                f"overlap {self.overlap} is too large for tile {self.tile}; use less than half of the tile"
            )
        return self


class ExportConfig(Section):
    opset: int = Field(18, ge=17)
    tolerance: float = Field(
        1e-3, gt=0, description="largest difference from PyTorch an exported model may show, on a [0,1] scale"
    )


class GateConfig(Section):
    """When a challenger becomes champion, see `docs/registry.md`. All rules must hold."""

    metric: Literal["psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"] = Field("psnr_rgb", description="decides on pairs")
    margin: float = Field(
        0.0, ge=0, description="the interval of the mean gain over the champion must lie above this (the metric's unit)"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the bootstrap intervals of mean gains")
    min_images: int = Field(5, ge=3, description="fewer pairs than this do not decide; fewer images at all: hold")
    judges: tuple[str, ...] = Field(
        ("niqe", "piqe", "decorrelation"),
        description="no-reference scores that decide without pairs: two must prefer the challenger, none the champion; "
        "those that share a member with the reward are not asked",
    )
    clean_psnr: float = Field(30.0, ge=0, description="dB that clean images must keep when they are derained")
    clean_drop: float = Field(1.0, ge=0, description="dB that the challenger may be below the champion there")
    clean_enough: float = Field(40.0, ge=0, description="dB there that nobody sees: the champion's more does not count")
    slowdown: float = Field(2.0, ge=0, description="times the champion's time an image may take; 0: not compared")
    slowest: float = Field(0.0, ge=0, description="seconds a megapixel may take on the gate's machine; 0: any")
