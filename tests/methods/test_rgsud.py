"""The switch, the mixture of pseudo-pairs, and who learns from which loss."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.config import load_config
from rgsud_lib.methods import Batch
from rgsud_lib.methods.rgsud import RGSUD

SMALL = [
    "derainer.width=4",
    "derainer.encoder=[1]",
    "derainer.middle=1",
    "derainer.decoder=[1]",
    "method.unet_width=4",
    "method.unet_depth=1",
    "method.generator_width=4",
    "method.generator_blocks=1",
    "method.discriminator_width=4",
    "method.discriminator_layers=1",
    "method.rain_prior=none",
    "method.clean_share=0",
]


def method(*settings: str) -> RGSUD:
    torch.manual_seed(0)
    return RGSUD(load_config("cpu", [*SMALL, *settings]))


def batch(**more) -> Batch:
    clean, rainy, drawn = torch.rand(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1)).unbind(0)
    return Batch(clean=clean, rainy=rainy, drawn=drawn, **more)


def test_the_switch_turns_from_the_unet_to_the_reward():
    made, crops = method(), batch(reward=torch.full((4, 3, 16, 16), 0.25))
    assert torch.equal(made(crops).rain, crops.rainy - 0.25)
    crops.reward = None
    assert torch.equal(made(crops).rain, crops.rainy - made.unet(crops.rainy))


def test_the_achromatic_prior_keeps_grey_light_above_the_floor():
    made = method("method.rain_prior=achromatic", "method.rain_floor=0.1")
    rainy = torch.full((1, 3, 8, 8), 0.5)
    reward = rainy - torch.tensor([0.3, 0.3, 0.0]).view(1, 3, 1, 1)
    reward[..., 4:] = rainy[..., 4:] - 0.09
    rain = made.degradation(rainy, reward)
    torch.testing.assert_close(rain[..., :4], torch.full((1, 3, 8, 4), 0.2))
    assert not rain[..., 4:].any()


def test_pseudo_pairs_are_generated_drawn_or_clean():
    crops = batch(
        use_drawn=torch.tensor([True, False, False, False]), use_clean=torch.tensor([False, True, False, False])
    )
    made = method()
    seen: list[torch.Tensor] = []
    made.derainer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    out = made(crops, train_generator=False)
    assert torch.equal(seen[0][0], crops.drawn[0]) and torch.equal(seen[0][1], crops.clean[1])
    assert torch.equal(seen[0][2:], out.generated[2:].clamp(0, 1))


def test_the_generator_starts_as_the_transplant_and_is_held_there():
    made, crops = method("method.correction_weight=5"), batch(gain=torch.tensor([0.5, 1.0, 1.5, 2.0]))
    out = made(crops)
    torch.testing.assert_close(out.generated, crops.clean + out.source)
    assert float(made.generator_losses(crops, out)["correction"].detach()) == pytest.approx(0, abs=1e-6)
    torch.nn.init.constant_(made.generator.tail.bias, 0.1)
    out = made(crops)
    assert float(made.generator_losses(crops, out)["correction"].detach()) == pytest.approx(0.5, abs=1e-5)
    assert "correction" not in method("method.correction_weight=0").generator_losses(crops, out)


def test_no_loss_reaches_anothers_network():
    made, crops = method("method.correction_weight=5"), batch()
    out = made(crops)
    sum(made.derainer_losses(crops, out).values()).backward(retain_graph=True)
    assert gradients(made) == {"derainer"}
    made.zero_grad()
    sum(made.generator_losses(crops, out).values()).backward()
    assert gradients(made) == {"generator", "unet"}
    made.zero_grad()
    made.discriminator_loss(crops, out).backward()
    assert gradients(made) == {"discriminator"}


def gradients(made: RGSUD) -> set[str]:
    return {
        name.split(".")[0] for name, weight in made.named_parameters() if weight.grad is not None and weight.grad.any()
    }
