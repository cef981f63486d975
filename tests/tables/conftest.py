"""A data folder with four tiny pairs called Rain100L, clean images beside it, and settings that train in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rgsud_lib.data.images import to_uint8
from rgsud_lib.data.rain import draw_rain

TINY = """
derainer.width=4 derainer.encoder=[1] derainer.middle=1 derainer.decoder=[1]
method.unet_width=4 method.unet_depth=1 method.generator_width=4 method.generator_blocks=1
method.discriminator_width=4 method.discriminator_layers=1
warm_start.steps=2 warm_start.batch=2 warm_start.crop=32
training.steps=2 training.batch=2 training.crop=32 training.device=cpu training.validation_images=1
critic.enabled=false reward.scorer=rain_layer reward.round_every=2 reward.budget=0.5 reinforcement.steps=4
"""


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`Rain100L/{rain,clean}` and `clean_other`: random textured scenes of 72 x 88 pixels."""
    root = tmp_path_factory.mktemp("sets")
    for seed in range(4):
        _save(root / "Rain100L" / "clean", seed, _scene(seed))
        _save(root / "Rain100L" / "rain", seed, draw_rain(_scene(seed), seed))
        _save(root / "clean_other", seed, _scene(10 + seed))
    return root


def _scene(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 7, generator=generator), size=(72, 88), mode="bicubic")
    return (0.8 * coarse + 0.1 * torch.rand(1, 3, 72, 88, generator=generator)).clamp(0, 1)


def _save(folder: Path, number: int, image: torch.Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(to_uint8(image)[0])).save(folder / f"{number}.png")
