"""A tiny dataset and settings with which both stages train in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.images import to_uint8
from rgsud_lib.data.prepare import prepare_dataset
from rgsud_lib.data.rain import draw_rain

TINY = """
derainer.width=4 derainer.encoder=[1] derainer.middle=1 derainer.decoder=[1]
method.unet_width=4 method.unet_depth=1 method.generator_width=4 method.generator_blocks=1
method.discriminator_width=4 method.discriminator_layers=1 method.adversarial_every=2
warm_start.steps=6 warm_start.batch=2 warm_start.crop=32
training.steps=8 training.batch=2 training.crop=32 training.threads=1 training.device=cpu
training.checkpoint_every=3 training.log_every=2 training.validate_every=4 training.validation_images=2
critic.enabled=false reward.scorer=rain_layer reward.round_every=2 reward.budget=0.5 reinforcement.steps=8
"""


@pytest.fixture(scope="session")
def tiny() -> Config:
    return load_config("cpu", TINY.split())


def scene(seed: int) -> torch.Tensor:
    """A random scene of coloured patches and texture, 1 x 3 x 72 x 88."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 7, generator=generator), size=(72, 88), mode="bicubic")
    return (0.8 * coarse + 0.1 * torch.rand(1, 3, 72, 88, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> Path:
    """A sealed dataset bundle: 6 clean and 5 rainy images of different scenes."""
    root = tmp_path_factory.mktemp("tiny")
    for folder, seeds in (("clean", range(6)), ("rainy", range(10, 15))):
        (root / folder).mkdir()
        for seed in seeds:
            image = scene(seed) if folder == "clean" else draw_rain(scene(seed), seed)
            Image.fromarray(np.ascontiguousarray(to_uint8(image)[0])).save(root / folder / f"{seed}.png")
    bundle = root / "dataset"
    bundle.mkdir()
    prepare_dataset(tiny.data, str(root / "rainy"), str(root / "clean"), None, bundle)
    seal(bundle, "dataset", tiny.digest("data"))
    return bundle
