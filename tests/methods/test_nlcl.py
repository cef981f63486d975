"""NLCL's contrasts: patches that are alike, and layers that are not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rgsud_lib.losses import layer_contrast_loss
from rgsud_lib.methods.nlcl import gathered, patch_grid, similar_patches

from .test_methods import batch, configured, made, reached


def losses(method, crops) -> dict[str, torch.Tensor]:
    return next(iter(method.updates(crops, adversarial=True))).losses


def test_who_learns_from_which_loss():
    learners = {
        "adversarial": {"derainer"},
        "location": {"derainer", "encoder"},
        "layers": {"derainer", "rain_network"},
        "consistency": {"derainer", "rain_network"},
        "sparsity": {"derainer"},
    }
    for name, networks in learners.items():
        method = made("nlcl")
        losses(method, batch())[name].backward()
        assert {weight.split(".")[0] for weight in reached(method)} == networks, name


def test_layers_that_add_up_to_the_image_are_consistent():
    method, crops = made("nlcl"), batch()
    method.derainer.register_forward_hook(lambda module, inputs, output: inputs[0] - 0.1)
    method.rain_network.register_forward_hook(lambda module, inputs, output: inputs[0] - 0.1)
    found = losses(method, crops)
    assert found["consistency"].item() == pytest.approx(0, abs=1e-9)
    assert found["sparsity"].item() == pytest.approx(0.1 * 0.2, rel=1e-4)


def test_weights_scale_their_losses():
    weights = "location", "layer", "consistency", "sparsity"
    once, none = losses(made("nlcl"), batch()), made("nlcl", *(f"method.nlcl.{name}_weight=0" for name in weights))
    off = losses(none, batch())
    for name in ("location", "layers", "consistency", "sparsity"):
        assert once[name] > 0 and off[name] == 0


def test_layers_apart_cost_less_than_layers_mixed():
    one, other = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    image, rain = one.expand(1, 3, 8), other.expand(1, 5, 8)
    apart = layer_contrast_loss(image, rain, 0.07)
    mixed = layer_contrast_loss(
        torch.cat([image[:, :2], rain[:, :1]], 1), torch.cat([rain[:, :4], image[:, :1]], 1), 0.07
    )
    assert apart < mixed
    same = layer_contrast_loss(one.expand(1, 3, 8), one.expand(1, 5, 8), 0.07)
    assert same.item() == pytest.approx(torch.tensor(7.0).log().item(), abs=1e-5)  # seven others, all alike


def test_an_anchor_finds_itself_and_its_like():
    layer = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layer[..., 24:32, 24:32] = layer[..., :8, :8]
    assert patch_grid(layer, 8) == (7, 7)
    places = similar_patches(layer, side=8, anchors=7, count=2)
    assert places.shape == (1, 7, 2)
    assert set(places[0, 0].tolist()) == {0, 48}  # the first patch and its copy in the last corner
    assert (places[0, 1:, 0] == torch.arange(7, 49, 7)).all()


def test_there_may_be_fewer_patches_than_asked_for():
    layer = torch.rand(2, 3, 16, 16)
    places = similar_patches(layer, side=8, anchors=4, count=100)
    assert places.shape == (2, 3, 9)
    vectors = gathered(torch.rand(2, 5, 4, 4), patch_grid(layer, 8), places)
    assert vectors.shape == (6, 9, 5)
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(6, 9))


def test_the_patch_must_have_neighbours():
    with pytest.raises(Exception, match="similar"):
        configured("nlcl", "method.nlcl.similar=1")
