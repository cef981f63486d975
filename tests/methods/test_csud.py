"""CSUD's own losses."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.errors import ConfigError
from rgsud_lib.losses import lsgan_discriminator_loss
from rgsud_lib.methods import build_method
from rgsud_lib.networks.vgg import PerceptualLoss

from .test_methods import batch, configured, made, reached

QUIET = "method.csud.reconstruction_weight=0", "method.csud.derainer_reconstruction_weight=0"


def test_a_generator_that_adds_nothing_reconstructs_itself():
    method, crops = build_method(configured("csud")), batch()
    assert method.self_reconstruction(crops.clean, crops.clean, crops.rainy).item() == 0
    torch.nn.init.constant_(method.generator.tail.bias, 0.1)
    loss = method.self_reconstruction(crops.clean, crops.clean, crops.rainy)  # the sum of two means
    assert loss.item() == pytest.approx(0.2, abs=1e-6)


def test_the_weights_of_both_self_reconstructions():
    method, crops = made("csud"), batch()
    out = method(crops)
    sources = out.restored.detach(), out.derained_pseudo.detach()
    clean = crops.clean
    on_derainer = method.derainer_losses(crops, out)["derainer_reconstruction"]
    torch.testing.assert_close(on_derainer, 0.5 * method.self_reconstruction(clean, *sources))
    on_generator = method.generator_losses(crops, out)["generator_reconstruction"]
    torch.testing.assert_close(on_generator, 5 * method.self_reconstruction(clean, clean, *sources))
    assert not any("reconstruction" in name for name in made("csud", *QUIET).derainer_losses(crops, out))


def test_rain_that_is_left_in_is_the_derainers_fault():
    method, crops = made("csud"), batch()
    method.derainer_losses(crops, method(crops))["derainer_reconstruction"].backward()
    assert {name.split(".")[0] for name in reached(method)} == {"derainer"}


def test_channel_consistency_is_zero_for_grey_rain_only():
    method, crops = build_method(configured("csud")), batch()
    torch.nn.init.constant_(method.generator.tail.bias, 0.1)
    assert method.generator_losses(crops, method(crops))["achromatic"].item() == pytest.approx(0, abs=1e-5)
    method.generator.tail.bias.data[0] = 0.2  # two of the three pairs of channels differ by 0.1
    loss = method.generator_losses(crops, method(crops))["achromatic"]
    assert loss.item() == pytest.approx(10 * 0.2, abs=1e-4)


@pytest.fixture(scope="module")
def vgg_weights(tmp_path_factory) -> str:
    """Random weights under torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    state, channels = {"classifier.0.weight": torch.zeros(1)}, 3
    for number, width in zip((0, 2, 5, 7, 10, 12, 14, 16), (64, 64, 128, 128, 256, 256, 256, 256), strict=True):
        state[f"features.{number}.weight"] = 0.05 * torch.randn(width, channels, 3, 3, generator=generator)
        state[f"features.{number}.bias"] = torch.zeros(width)
        channels = width
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state, path)
    return str(path)


def test_the_perceptual_loss_is_an_option(vgg_weights):
    settings = "method.csud.perceptual_weight=0.2", f"method.csud.vgg_weights={vgg_weights}"
    method, crops = made("csud", *settings), batch()
    losses = method.derainer_losses(crops, method(crops))
    assert losses["perceptual"] > 0 and "perceptual" not in made("csud").derainer_losses(crops, method(crops))
    losses["perceptual"].backward()
    assert {name.split(".")[0] for name in reached(method)} == {"derainer"}
    assert method.state_dict().keys() == made("csud").state_dict().keys()
    assert PerceptualLoss(vgg_weights)(crops.clean, crops.clean).item() == 0


def test_vgg_weights_that_are_not_there_or_not_readable(tmp_path):
    with pytest.raises(ConfigError, match=r"needs a VGG19: set method\.csud\.vgg_weights"):
        configured("csud", "method.csud.perceptual_weight=0.2")
    with pytest.raises(ConfigError, match="is no file: set method.csud.vgg_weights"):
        PerceptualLoss(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    for name in ("text.pth", "other.pth"):
        with pytest.raises(ConfigError, match=f"{name} cannot be read for method.csud.vgg_weights"):
            PerceptualLoss(tmp_path / name)


def test_the_warm_start_teaches_g_to_move_rain_to_another_scene():
    method, crops = build_method(configured("csud", "method.ssim_weight=0")), batch()
    _, update = method.warm_start(crops)
    scene = crops.clean.flip(0)  # of two images, the other one
    rained = (scene + crops.drawn - crops.clean).clamp(0, 1)
    torch.testing.assert_close(update.losses["transplant"], method.reconstruction(scene, rained))  # G adds nothing yet
    update.losses["transplant"].backward()
    assert {name.split(".")[0] for name in reached(method)} == {"generator"}


def test_d_may_be_shown_the_same_scene():
    for kind in ("pseudo_rainy", "same_scene"):
        method, crops = made("csud", f"method.discriminator_fake={kind}"), batch()
        out = method(crops)
        fake = out.generated
        if kind == "same_scene":
            fake = method.generator(out.restored.clamp(0, 1), crops.rainy.flip(0))
        expected = lsgan_discriminator_loss(method.discriminator, crops.rainy, fake)
        torch.testing.assert_close(method.discriminator_loss(crops, out), expected)
