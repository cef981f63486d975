"""Every derainer: its published size, any image size, identity start, ONNX, gradients, and clear errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rgsud_lib.config import DerainerConfig, load_config
from rgsud_lib.derainer_sizes import SIZES
from rgsud_lib.errors import ConfigError
from rgsud_lib.graph import capture, smallest_side, to_onnx
from rgsud_lib.networks import DERAINERS, build_derainer
from rgsud_lib.networks.drsformer import SparseAttention
from rgsud_lib.networks.restormer import ChannelAttention

# Millions of parameters as published (NAFNet: CSUD's choice of it).
PUBLISHED = {
    "nafnet": 29.2, "prenet": 0.169, "rescan": 0.15, "mprnet": 3.64, "restormer": 26.13, "drsformer": 33.65,
    "nerd_rain": 22.89,
}  # fmt: skip


def mini(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_derainer(DerainerConfig(name=name, size="mini"))


def test_every_network_has_sizes():
    assert set(SIZES) == set(DERAINERS) == set(PUBLISHED)
    assert all(set(sizes) == {"published", "tiny", "mini"} for sizes in SIZES.values())


@pytest.mark.parametrize("name", SIZES)
def test_the_published_size_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        network = build_derainer(DerainerConfig(name=name))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(1e6 * PUBLISHED[name], rel=0.02)


@pytest.mark.parametrize("name", SIZES)
def test_any_size_goes_in_and_an_untrained_network_returns_its_input(name):
    network = mini(name)
    for size in ((32, 32), (17, 30), (1, 3)):
        images = torch.rand(2, 3, *size)
        torch.testing.assert_close(network(images), images)


@pytest.mark.parametrize("name", SIZES)
def test_it_learns_what_it_is_shown_and_every_parameter_takes_part(name):
    network = mini(name)
    clean = torch.linspace(0.2, 0.6, 24).expand(2, 3, 24, 24)
    rainy = (clean + 0.3 * (torch.arange(24) % 6 == 0)).clamp(0, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (network(rainy) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.8 * losses[0]
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", SIZES)
def test_the_batch_does_not_matter(name):
    network, images = trained(name), torch.rand(3, 3, 20, 28)
    each = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(network(images), each, atol=1e-5, rtol=1e-4)


LARGE_GRAPHS = ("mprnet", "nerd_rain")  # a minute each to capture


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.integration if name in LARGE_GRAPHS else ()) for name in SIZES]
)
def test_program_and_onnx_agree_on_sizes_they_were_not_exported_with(name):
    import onnxruntime

    network = trained(name)
    program = capture(network)
    assert smallest_side(program) <= 9
    run = program.module()
    session = onnxruntime.InferenceSession(to_onnx(program, 18, {}), providers=["CPUExecutionProvider"])
    for size in ((2, 3, 37, 50), (1, 3, 64, 48), (1, 3, 9, 9)):
        images = torch.rand(size)
        with torch.no_grad():
            expected = network(images).clamp(0, 1)
            torch.testing.assert_close(run(images), expected, atol=1e-5, rtol=0)
        (output,) = session.run(None, {"rainy": images.numpy()})
        np.testing.assert_allclose(output, expected.numpy(), atol=1e-4)


def trained(name: str) -> torch.nn.Module:
    """A network that changes its input."""
    network = mini(name).eval()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network


def test_sparse_attention_is_a_mean_of_four_that_drop_the_weakest_channels():
    attention = SparseAttention(20, 1)
    scores = torch.arange(20.0).view(1, 1, 1, 20).expand(1, 1, 20, 20)
    weights = attention.weigh(scores)
    assert weights.sum(-1).allclose(torch.tensor(0.8))
    assert (weights[..., :4] == 0).all() and (weights[..., 4:] > 0).all()
    dense = ChannelAttention(20, 1).weigh(scores)
    assert (weights[..., -1] > 0.8 * dense[..., -1]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["derainer.name=restorer"], "unknown derainer 'restorer'; choose one of nafnet, prenet"),
        (["derainer.size=huge"], "unknown size 'huge' of nafnet; choose one of published, tiny, mini"),
        (["derainer.name=prenet", "derainer.blocks=[1]"], "prenet has no setting blocks; it has width, passes"),
        (["derainer.width=wide"], "nafnet's width is 'wide'; expected something like 16"),
        (["derainer.name=prenet", "derainer.width=0"], "prenet's width is 0; expected something like 16, 4 or more"),
        (["derainer.name=restormer", "derainer.width=5"], "restormer's width is 5; expected an even number"),
        (["derainer.name=nerd_rain", "derainer.blocks=[1]"], "nerd_rain's blocks (1,) are of one scale"),
        (["derainer.encoder=[1]"], "encoder has 1 levels and decoder 3; give both the same number"),
    ],
)
def test_a_mistake_is_named(settings, message):
    with pytest.raises(ConfigError) as error:
        load_config("cpu", settings)
    assert message in str(error.value)


def test_a_preset_gives_its_size_to_any_network():
    config = load_config("cpu", ["derainer.name=restormer", "derainer.width=24"]).derainer
    assert config.arguments == {"width": 24, "blocks": (1, 1, 2), "refinement": 1}
