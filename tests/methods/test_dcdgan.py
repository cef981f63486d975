"""DCD-GAN's objective as its released code has it, and its options."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.losses import hinge_discriminator_loss, hinge_generator_loss, patch_nce_loss
from rgsud_lib.methods import build_method
from rgsud_lib.networks.patch_encoder import PatchEncoder

from .test_methods import batch, configured, made, reached

OPTIONS = "method.dcdgan.cycle_weight=1", "method.dcdgan.frequency_weight=1"


def losses(*settings: str) -> dict[str, torch.Tensor]:
    """Those of the generators, where the derainer adds 0.1 and the other generator changes nothing."""
    torch.manual_seed(0)
    method = build_method(configured("dcdgan", *settings))
    method.derainer.register_forward_hook(lambda module, inputs, output: inputs[0] + 0.1)
    return {name: value.detach() for name, value in next(iter(method.updates(batch(), True))).losses.items()}


def test_by_default_the_objective_is_the_released_codes():
    assert set(losses()) == {"adversarial", "contrast", "identity"}
    method, crops = made("dcdgan"), batch()
    restored, pseudo_rainy = method.derain(crops.rainy), method.generator(crops.clean)
    found = method.generator_losses(crops, restored, pseudo_rainy)
    mean = (method.clean_discriminator(restored).mean() + method.rain_discriminator(pseudo_rainy).mean()) / 2
    torch.testing.assert_close(found["adversarial"], -mean)
    torch.testing.assert_close(found["contrast"], 2 * method.contrast_loss(crops, restored, pseudo_rainy) / 2)


def test_reconstructions_are_compared_where_asked():
    found = losses(*OPTIONS)
    assert found["identity"].item() == pytest.approx((2 * 0.1) / 2, rel=1e-4)
    assert found["cycle"].item() == pytest.approx(2 * (0.1 + 0.1), rel=1e-4)
    assert found["frequency"].item() == pytest.approx(2 * 0.1**2, rel=1e-3)  # Parseval


def test_contrast_teaches_both_generators_and_both_encoders():
    method = made("dcdgan")
    next(iter(method.updates(batch(), adversarial=True))).losses["contrast"].backward()
    networks = {name.split(".")[0] for name in reached(method)}
    assert networks == {"derainer", "generator", "rain_encoder", "clean_encoder"}


def test_patches_find_their_own():
    keys = torch.eye(6).unsqueeze(0)
    matched, shifted = patch_nce_loss(keys, keys, 0.07), patch_nce_loss(keys.roll(1, dims=1), keys, 0.07)
    assert matched < 1e-4 and shifted.item() == pytest.approx(1 / 0.07, abs=1e-3)
    keys.requires_grad_()
    assert not patch_nce_loss(keys.detach(), keys, 0.07).requires_grad


def test_the_hinge_is_content_beyond_its_margin():
    def decide(images: torch.Tensor) -> torch.Tensor:
        return images

    real, fake = torch.tensor([[1.5], [0.0]]), torch.tensor([[-2.0], [0.5]])
    assert hinge_discriminator_loss(decide, real, fake).item() == pytest.approx((0.5 + 0.75) / 2)
    assert hinge_generator_loss(fake).item() == pytest.approx(0.75)


@pytest.mark.parametrize(("side", "counts"), [(64, [128, 128, 64]), (40, [100, 100, 25])])
def test_patches_are_bounded_and_of_unit_length(side, counts):
    found = PatchEncoder(width=4, features=8, patches=128)(torch.rand(2, 3, side, side))
    assert [level.shape for level in found] == [(2, count, 8) for count in counts]
    for level in found:
        torch.testing.assert_close(level.norm(dim=-1), torch.ones(level.shape[:2]))
