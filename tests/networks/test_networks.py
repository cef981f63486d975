"""Sizes as published, any image size, identity start."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.config import DerainerConfig, load_config
from rgsud_lib.networks import build_derainer
from rgsud_lib.networks.patchgan import PatchGAN
from rgsud_lib.networks.rain_generator import RainGenerator
from rgsud_lib.networks.unet import UNet

SMALL = DerainerConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1))


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_derainer_has_the_published_size():
    assert parameters(build_derainer(load_config("paper").derainer)) == pytest.approx(29.2e6, rel=0.01)


def test_published_checkpoint_names():
    names = set(build_derainer(SMALL).state_dict())
    assert {
        "intro.weight",
        "encoders.0.0.conv2.weight",
        "encoders.0.0.sca.1.bias",
        "downs.1.weight",
        "middle_blks.0.beta",
    } <= names
    assert {"ups.0.0.weight", "decoders.1.0.norm2.bias", "ending.bias"} <= names


@pytest.mark.parametrize("size", [(64, 64), (65, 63), (5, 7), (1, 1)])
def test_any_size_and_identity_start(size):
    images = torch.rand(2, 3, *size)
    torch.testing.assert_close(build_derainer(SMALL)(images), images)


@pytest.mark.parametrize("size", [(32, 32), (33, 50)])
def test_unet_keeps_the_size_and_trains_every_parameter(size):
    network = UNet(4, 3)
    output = network(torch.rand(2, 3, *size))
    output.square().mean().backward()
    assert output.shape == (2, 3, *size)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_generator_starts_as_the_plain_transplant():
    clean, rain = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(RainGenerator(8, 6)(clean, rain), clean + rain)


def test_paper_generator_has_six_residual_blocks():
    config = load_config("paper").method
    assert len(RainGenerator(config.generator_width, config.generator_blocks).body) == 6


def test_discriminator_judges_patches():
    assert PatchGAN(8, 2)(torch.rand(2, 3, 64, 64)).shape[:2] == (2, 1)


def test_channels_last_gives_the_same_output():
    torch.manual_seed(0)
    network = build_derainer(SMALL)
    torch.nn.init.normal_(network.ending.weight, std=0.1)
    images = torch.rand(1, 3, 40, 24)
    expected = network(images)
    changed = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=1e-5)
