"""DerainCycleGAN's own losses: a fresh attention finds nothing, a fresh generator adds what the mask shows."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.methods import build_method
from rgsud_lib.networks.rain_attention import RainAttention

from .test_methods import batch, configured, made, reached


def losses(shift: float, found: float) -> dict[str, float]:
    """Of a derainer that adds `shift` and an attention that sees rain of strength `found` everywhere."""
    torch.manual_seed(0)
    method = build_method(configured("derain_cyclegan"))
    method.derainer.register_forward_hook(lambda module, inputs, output: inputs[0] + shift)
    torch.nn.init.constant_(method.attention.head.bias, found)
    update = next(iter(method.updates(batch(), adversarial=True)))
    return {name: value.item() for name, value in update.losses.items()}


def test_what_is_taken_away_is_what_the_mask_shows():
    found = losses(-0.1, 0.1)
    assert found["consistency"] == pytest.approx(0, abs=1e-9)
    assert losses(-0.1, 0.0)["consistency"] == pytest.approx(10 * 0.2**2, rel=1e-4)
    assert found["cycle"] == pytest.approx(0, abs=1e-5)  # the generator puts back what the mask shows


def test_a_clean_image_must_show_no_rain():
    assert losses(0.0, 0.0)["attention"] == 0
    assert losses(0.0, 0.1)["attention"] == pytest.approx(10 * 0.2**2, rel=1e-4)


def test_every_loss_teaches_the_attention_and_no_discriminator():
    for name in ("adversarial", "cycle", "consistency", "attention"):
        method = made("derain_cyclegan")
        next(iter(method.updates(batch(), adversarial=True))).losses[name].backward()
        networks = {weight.split(".")[0] for weight in reached(method)}
        assert "attention" in networks and not any("discriminator" in network for network in networks)
        assert ("derainer" in networks) == (name != "attention")


def test_the_attention_is_one_channel_of_any_size_and_starts_at_nothing():
    attention = RainAttention(width=4, passes=2)
    mask = attention(torch.rand(2, 3, 19, 33))
    assert mask.shape == (2, 1, 19, 33) and not mask.any()
    torch.manual_seed(0)
    torch.nn.init.normal_(attention.head.weight)
    assert not torch.equal(attention(torch.zeros(1, 3, 8, 8)), attention(torch.ones(1, 3, 8, 8)))


def test_the_published_attention_has_prenets_size():
    weights = sum(weight.numel() for weight in RainAttention().parameters())
    assert weights == pytest.approx(0.169e6, rel=0.02)  # PReNet's 168 963, less two channels in and out
