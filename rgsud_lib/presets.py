"""Presets: functions that return what differs from the configuration's defaults, which are the paper's."""

from __future__ import annotations

from typing import Any


def paper() -> dict[str, Any]:
    """The published sizes, for a GPU: no warm start, 256-pixel crops."""
    return {}


def cpu() -> dict[str, Any]:
    """About 30 minutes on 2 CPU cores: 0.4 M parameters, warm start, 64-pixel crops."""
    return {
        "derainer": {"size": "tiny"},
        "method": {
            "unet_width": 8, "unet_depth": 3, "generator_width": 8,
            "discriminator_width": 16, "discriminator_layers": 2, "discriminator_fake": "same_scene",
            "pixel_loss": "l1_mse", "ssim_weight": 0.2, "adversarial_every": 8,
            "rain_prior": "achromatic", "rain_jitter": 0.4, "clean_share": 0.15, "correction_weight": 5.0,
            "derain_cyclegan": {"attention_width": 8, "attention_passes": 3},
            "dcdgan": {"encoder_width": 16, "features": 64}, "nlcl": {"encoder_width": 16, "features": 64},
        },
        "warm_start": {"enabled": True, "steps": 3000},
        "training": {
            "steps": 600, "batch": 6, "crop": 64, "learning_rate": 3e-4, "final_learning_rate": 3e-5,
            "ema_decay": 0.998, "checkpoint_every": 200, "validate_every": 500, "validation_images": 8,
        },
        "reward": {"candidates": ["mirror"]},
        "reinforcement": {"steps": 2000, "learning_rate": 4e-4},
        "evaluation": {"tile": 512, "overlap": 32},
    }  # fmt: skip


def demo() -> dict[str, Any]:
    """The whole pipeline in about 5 to 6 minutes on 2 CPU cores."""
    small = cpu()
    small["derainer"] = {"size": "mini"}
    # Its rainy photographs are drawn, so drawn rain stays the best teacher.
    small["warm_start"] = {"enabled": True, "steps": 1000, "late_replay": 0.3}
    small["training"] |= {
        "steps": 100,
        "checkpoint_every": 100,
        "validate_every": 100,
        "validation_images": 4,
        "log_every": 20,
    }
    small["reinforcement"] |= {"steps": 300}
    small["critic"] = {"steps": 100}
    return small


def haze() -> dict[str, Any]:
    """The demo with haze in the place of rain: what differs is all that assumes rain."""
    small = demo()
    small["degradation"] = {"name": "haze"}
    # Haze takes light away too, and not alike in all channels.
    small["method"] |= {"rain_prior": "none", "achromatic_weight": 0.0, "rain_jitter": 0.0}
    # What it changes depends on the scene below it, so one scene's residual is no haze on another: pairs are drawn.
    small["warm_start"] |= {"replay": 1.0, "late_replay": 1.0}
    small["scorers"] = {"daclip": {"degradations": ("hazy",)}}
    return small


PRESETS = {"demo": demo, "cpu": cpu, "paper": paper, "haze": haze}
EMBEDDED = ("demo", "haze")  # these bring their own photographs
