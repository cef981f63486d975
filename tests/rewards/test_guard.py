"""What is scored high and yet not believable does not become a reward."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rgsud_lib.data.rain import draw_rain
from rgsud_lib.networks.layers import low_pass
from rgsud_lib.rewards.guard import Guard, measures


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Four clean scenes with detail at several scales, and the same in drawn rain."""
    generator = torch.Generator().manual_seed(0)
    scales = [F.interpolate(torch.rand(4, 3, side, side, generator=generator), size=96, mode="bicubic")
              for side in (6, 24, 96)]  # fmt: skip
    clean = (0.5 * scales[0] + 0.2 * scales[1] + 0.1 * scales[2]).clamp(0, 0.8)
    return clean, draw_rain(clean, 1)


def test_the_truth_is_trusted(images):
    clean, rainy = images
    assert Guard()(clean, rainy).all()
    assert Guard()(rainy, rainy).all()  # doing nothing drifts nowhere; the score has to see that it is no reward
    assert Guard()((clean + 0.5 * (rainy - clean)).clamp(0, 1), rainy).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda clean: low_pass(clean, 9, 1.2),
        lambda clean: clean + torch.tensor([0.03, 0.0, -0.03]).view(1, 3, 1, 1),
        lambda clean: clean + 0.02,
        lambda clean: clean - 0.02,
        lambda clean: clean + 0.1 * torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) - 0.05,
    ],
    ids=["blurred", "colour-shifted", "brighter", "darker", "noisy"],
)
def test_what_drifts_is_refused(images, spoil):
    clean, rainy = images
    assert not Guard()(spoil(clean).clamp(0, 1), rainy).any()
    assert Guard(0.001)(spoil(clean).clamp(0, 1), rainy).all()  # as good as off


def test_a_batch_is_judged_image_by_image(images):
    clean, rainy = images
    singly = [torch.stack(measures(clean[i : i + 1], rainy[i : i + 1])) for i in range(4)]
    torch.testing.assert_close(torch.stack(measures(clean, rainy)), torch.cat(singly, dim=1), rtol=0, atol=1e-6)


def test_a_flat_image_has_nothing_to_lose():
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert Guard()(grey, grey).all()
