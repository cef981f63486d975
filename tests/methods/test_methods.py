"""What holds for every method: who learns from which loss, and how self-reinforcement joins."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from rgsud_lib.config import Config, load_config
from rgsud_lib.config.methods import MethodName
from rgsud_lib.errors import ConfigError
from rgsud_lib.methods import METHODS, Batch, Method, build_method
from rgsud_lib.training.steps import reinforced

SMALL = """
derainer.width=4 derainer.encoder=[1] derainer.middle=1 derainer.decoder=[1]
method.unet_width=4 method.unet_depth=1 method.generator_width=4 method.generator_blocks=1
method.discriminator_width=4 method.discriminator_layers=1
method.dcdgan.encoder_width=4 method.dcdgan.features=8 method.dcdgan.patches=16
method.derain_cyclegan.attention_width=4 method.derain_cyclegan.attention_passes=2
method.nlcl.encoder_width=4 method.nlcl.features=8 method.nlcl.patches=16 method.nlcl.patch=4
"""


def configured(name: str, *settings: str) -> Config:
    return load_config("cpu", [*SMALL.split(), f"method.name={name}", *settings])


def made(name: str, *settings: str) -> Method:
    """The method with weights at which every path carries gradient: fresh networks end in zeros."""
    torch.manual_seed(0)
    method = build_method(configured(name, *settings))
    for weight in method.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return method


def batch(**more) -> Batch:
    clean, rainy, drawn = torch.rand(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).unbind(0)
    return Batch(clean=clean, rainy=rainy, drawn=drawn, **more)


def reached(method: Method) -> set[str]:
    """Names of the weights that have a gradient, which is forgotten."""
    names = {name for name, weight in method.named_parameters() if weight.grad is not None and weight.grad.any()}
    method.zero_grad()
    return names


def names_of(method: Method, group: str) -> set[str]:
    members = {id(weight) for weight in method.groups()[group]}
    return {name for name, weight in method.named_parameters() if id(weight) in members}


def test_the_names_of_the_configuration_are_the_methods():
    assert set(get_args(MethodName)) == set(METHODS)


def test_an_unknown_method_is_answered_with_all_of_them():
    with pytest.raises(ConfigError, match="method.name='gan'") as caught:
        configured("gan")
    assert all(name in str(caught.value) for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_each_weight_is_in_one_group_and_the_derainers_in_its_own(name):
    method = made(name)
    grouped = [id(weight) for group in method.groups().values() for weight in group]
    assert sorted(grouped) == sorted(map(id, method.parameters()))
    assert {id(weight) for weight in method.derainer.parameters()} <= set(map(id, method.groups()["derainer"]))


@pytest.mark.parametrize("rewards", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_and_reach_the_weights_of_their_group_only(name, rewards):
    method, crops = made(name), batch(reward=torch.full((2, 3, 16, 16), 0.5) if rewards else None)
    seen = []
    for update in method.updates(crops, adversarial=True):
        assert all(torch.isfinite(loss) and loss.dim() == 0 for loss in update.losses.values())
        sum(update.losses.values()).backward()
        assert reached(method) and all(weight.requires_grad for weight in method.parameters())
        sum(next_losses(method, crops, update.group).values()).backward()
        assert reached(method) <= names_of(method, update.group), update.group
        seen.append(update.group)
    assert seen == list(method.groups())


def next_losses(method: Method, crops: Batch, group: str) -> dict[str, torch.Tensor]:
    """The losses of one group in a step of its own."""
    return next(update.losses for update in method.updates(crops, adversarial=True) if update.group == group)


@pytest.mark.parametrize("name", METHODS)
def test_the_derainer_is_trained_in_every_step(name):
    method = made(name)
    update = next(iter(method.updates(batch(), adversarial=False)))
    sum(update.losses.values()).backward()
    assert update.group == "derainer"
    assert any(weight.startswith("derainer.") for weight in reached(method))


@pytest.mark.parametrize("name", METHODS)
def test_the_warm_start_trains_the_derainer_on_drawn_rain(name):
    method, crops = made(name), batch()
    first, *rest = method.warm_start(crops)
    sum(first.losses.values()).backward()
    assert first.group == "derainer"
    assert {weight.split(".")[0] for weight in reached(method)} == {"derainer"}
    assert [update.group for update in rest] == (["generator"] if name in ("rgsud", "csud") else [])


@pytest.mark.parametrize("name", METHODS)
def test_self_reinforcement_joins_the_derainers_losses_and_no_others(name):
    method, crops = made(name), batch(reward=torch.full((2, 3, 16, 16), 0.5))
    config = configured(name).reinforcement
    for update in reinforced(method, crops, method.updates(crops, adversarial=True), config):
        assert ("self_reinforced" in update.losses) == (update.group == "derainer")
        if update.group == "derainer":
            pull = config.weight * (method.derain(crops.rainy) - crops.reward).square().mean()
            torch.testing.assert_close(update.losses["self_reinforced"], pull)
            update.losses["self_reinforced"].backward()
            assert {weight.split(".")[0] for weight in reached(method)} == {"derainer"}


@pytest.mark.parametrize("name", METHODS)
def test_any_size_is_derained(name):
    images = torch.rand(1, 3, 19, 33)
    assert made(name).derain(images).shape == images.shape


def test_settings_of_another_method_change_no_digest():
    one, other = configured("rgsud"), configured("rgsud", "method.cyclegan.cycle_weight=1")
    assert one.digest() == other.digest()
    assert configured("cyclegan").digest() != configured("cyclegan", "method.cyclegan.cycle_weight=1").digest()
