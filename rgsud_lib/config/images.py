"""Which images are accepted, what is removed from them, how they are split, when new ones are worth a training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rgsud_lib.config.section import Section


class DataConfig(Section):
    """What `prepare` accepts and how it splits."""

    min_side: int = Field(64, ge=16, description="shorter side in pixels below which an image is quarantined")
    max_pixels: int = Field(100_000_000, ge=1, description="more pixels than this is taken for a decompression bomb")
    duplicate_bits: int = Field(
        8, ge=0, le=256, description="near-duplicate: perceptual hashes at most this many of 256 bits apart"
    )
    leak_bits: int = Field(
        72, ge=0, le=256, description="same scene, whatever the rain: at most this many of 256 bits apart"
    )
    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="share of each domain held back from training")
    seed: int = Field(0, ge=0, description="seed of the split")


DegradationName = Literal["rain", "haze"]


class DegradationConfig(Section):
    """What the images suffer from: drawn for the warm start, for validation, and for what the critic learns from."""

    name: DegradationName = "rain"


class FanOutConfig(Section):
    """How work on large sets is shared out; changes no result."""

    images: int = Field(2000, ge=1, description="images that one task checks, scores or derains, at most")
    failures: float = Field(0.01, ge=0, le=1, description="share of all images that may fail to be derained")


class NewDataConfig(Section):
    """When new rain is worth a training. One of the three is enough."""

    min_new_images: int = Field(50, ge=1, description="this many new rainy images are worth a training")
    drift_p_value: float = Field(
        0.01, ge=0, lt=1, description="fewer are, where the drift test's p-value is at most this; 0: never"
    )
    max_age_days: float = Field(90, gt=0, description="any are, where the last model is older than this")
    sample: int = Field(200, ge=10, le=2000, description="images the drift test looks at, of each side at most")
