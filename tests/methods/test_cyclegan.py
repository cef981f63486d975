"""CycleGAN's losses by hand: its networks start at the identity."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.methods import build_method

from .test_methods import batch, configured


def losses(shift: float, *settings: str) -> dict[str, float]:
    """Of a derainer that adds `shift` and a generator that changes nothing."""
    torch.manual_seed(0)
    method = build_method(configured("cyclegan", *settings))
    method.derainer.register_forward_hook(lambda module, inputs, output: inputs[0] + shift)
    update = next(iter(method.updates(batch(), adversarial=True)))
    return {name: value.item() for name, value in update.losses.items()}


def test_the_identity_costs_nothing():
    found = losses(0.0)
    assert found["cycle"] == found["identity"] == 0 and found["adversarial"] > 0


def test_cycle_and_identity_weigh_as_in_the_paper_on_its_scale():
    found = losses(0.1)
    assert found["cycle"] == pytest.approx(10 * (0.2 + 0.2), rel=1e-4)  # both ways round
    assert found["identity"] == pytest.approx(5 * 0.2, rel=1e-4)


def test_without_its_weight_there_is_no_identity_loss():
    assert "identity" not in losses(0.1, "method.cyclegan.identity_weight=0")
