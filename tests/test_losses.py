"""Each loss against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from rgsud_lib.losses import (
    achromatic_loss,
    gaussian_line,
    l1_mse_loss,
    lsgan_loss,
    negative_psnr,
    self_reinforced_loss,
    ssim_loss,
)


def test_negative_psnr_is_the_mean_over_images():
    target = torch.zeros(2, 3, 8, 8)
    output = torch.stack([torch.full((3, 8, 8), 0.1), torch.full((3, 8, 8), 0.01)])
    assert float(negative_psnr(output, target)) == pytest.approx(-(20 + 40) / 2, abs=0.01)


def test_ssim_loss_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 40, 52, generator=generator)
    output = (target + 0.1 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    _, full = metrics.structural_similarity(
        target[0].numpy(), output[0].numpy(), channel_axis=0, data_range=1.0, full=True,
        gaussian_weights=True, sigma=1.5, win_size=11, use_sample_covariance=False,
    )  # fmt: skip
    assert 1 - float(ssim_loss(output, target)) == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-5)


def test_ssim_loss_of_equal_images_is_zero():
    image = torch.rand(1, 3, 16, 16)
    assert float(ssim_loss(image, image)) == pytest.approx(0, abs=1e-6)


def test_lsgan_loss():
    assert float(lsgan_loss(torch.full((1, 1, 2, 2), 0.25), real=True)) == pytest.approx(0.75**2)
    assert float(lsgan_loss(torch.full((1, 1, 2, 2), 0.25), real=False)) == pytest.approx(0.25**2)


def test_achromatic_loss_is_zero_for_grey_and_grows_with_colour():
    grey = torch.rand(2, 1, 8, 8).expand(2, 3, 8, 8)
    assert float(achromatic_loss(grey)) == 0
    tinted = torch.cat([torch.full((1, 1, 4, 4), value) for value in (0.1, 0.2, 0.4)], dim=1)
    assert float(achromatic_loss(tinted)) == pytest.approx(0.1 + 0.2 + 0.3, abs=1e-6)


@pytest.mark.parametrize(("distance", "expected"), [("mse", 0.04), ("l1", 0.2)])
def test_self_reinforced_loss_pulls_only_the_derainer(distance, expected):
    restored = torch.full((1, 3, 4, 4), 0.3, requires_grad=True)
    reward = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    loss = self_reinforced_loss(restored, reward, distance)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert restored.grad is not None
    assert reward.grad is None


def test_gaussian_line_is_a_normalised_gaussian():
    line = gaussian_line(11, 1.5)
    assert float(line.sum()) == pytest.approx(1)
    assert float(line[7] / line[5]) == pytest.approx(math.exp(-4 / (2 * 1.5**2)), rel=1e-5)


def test_ssim_loss_is_exact_under_autocast():
    generator = torch.Generator().manual_seed(0)
    target = 0.9 + 0.02 * torch.rand(1, 3, 40, 40, generator=generator)
    output = target + 0.002 * torch.randn(target.shape, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ssim_loss(output, target)
    assert torch.equal(mixed, ssim_loss(output, target))


def test_l1_mse_loss_is_the_mean_of_both_forms():
    output, target = torch.full((1, 3, 8, 8), 0.6), torch.full((1, 3, 8, 8), 0.5)
    assert float(l1_mse_loss(output, target)) == pytest.approx((0.1 + 30 * 0.01) / 2)
