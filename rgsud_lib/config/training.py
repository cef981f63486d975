"""How the stages train."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rgsud_lib.config.section import Section


class WarmStartConfig(Section):
    """Ours, not the paper's: supervised start on drawn rain over the user's own clean images."""

    enabled: bool = False
    steps: int = Field(2600, ge=1)
    batch: int = Field(6, ge=1)
    crop: int = Field(64, ge=32)
    learning_rate: float = Field(1e-3, gt=0)
    final_learning_rate: float = Field(1e-4, ge=0, description="the cosine schedule of the warm start ends here")
    replay: float = Field(0.3, ge=0, le=1, description="share of stage 1's pseudo-pairs that stay drawn rain")
    late_replay: float = Field(0.05, ge=0, le=1, description="the same in stage 2, whose rain comes from rewards")


class TrainingConfig(Section):
    """Stage 1 (reward recycling) and what both stages share; `batch` is the batch of all devices together."""

    seed: int = Field(0, ge=0)
    steps: int = Field(100_000, ge=1, description="optimiser steps of stage 1")
    batch: int = Field(4, ge=1)
    crop: int = Field(256, ge=32, description="side of the square training crops, pixels")
    learning_rate: float = Field(2e-4, gt=0)
    final_learning_rate: float = Field(1e-6, ge=0, description="the cosine schedule ends here")
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Literal["auto"] | int = Field(
        "auto", description="processes a node, one a GPU; auto: all visible GPUs that divide the batch, one on a CPU"
    )
    nodes: int = Field(1, ge=1, description="machines that train together, by a Kubeflow TrainJob where more than one")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16 on a GPU, float32 on a CPU"
    )
    threads: int = Field(
        1, ge=1, description="CPU threads; a second one gains little at these sizes and loses much on a busy machine"
    )
    checkpoint_every: int = Field(1000, ge=1)
    log_every: int = Field(50, ge=1)
    validate_every: int = Field(2000, ge=1)
    validation_images: int = Field(8, ge=1, description="held-back clean images with drawn rain")

    @field_validator("devices", mode="before")
    @classmethod
    def auto_or_number(cls, value: Any) -> Any:
        if value != "auto" and not (isinstance(value, int) and value >= 1):
            raise ValueError("expected auto or a number of at least 1")
        return value


class ReinforcementConfig(Section):
    """Stage 2 (self-reinforcement training)."""

    source: Literal["reward", "last", "none"] = Field(
        "reward", description="reward: the pool keeps the best; last: self-distillation control; none: continue stage 1"
    )
    steps: int = Field(100_000, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    weight: float = Field(0.8, ge=0, description="weight of the self-reinforced loss (paper: 0.8)")
    distance: Literal["mse", "l1"] = Field("mse", description="form of the self-reinforced loss (paper: squared error)")
    rescore: bool = Field(False, description="score stage 1's pool again where another scorer or version filled it")


class RetrainingConfig(Section):
    """What a training keeps of the model before it: the registry's champion, else the workdir's newest export."""

    keep_split: bool = Field(
        False, description="images of the last model's dataset stay in training or held back, as they were"
    )
    warm_start_from_champion: bool = Field(
        False, description="stage 1 starts from the last model's networks, in place of drawn rain"
    )
    reuse_pool: bool = Field(False, description="stage 1 starts from the last model's rewards of images still there")

    @model_validator(mode="after")
    def clean_evaluation(self) -> RetrainingConfig:
        if (self.warm_start_from_champion or self.reuse_pool) and not self.keep_split:
            raise ValueError(
                "warm_start_from_champion and reuse_pool bring in what was learnt from the last model's training "
                "images, which must not be held back now: add --set retraining.keep_split=true"
            )
        return self
