from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity

from rgsud_lib.data.images import to_tensor
from rgsud_lib.errors import DataError
from rgsud_lib.evaluation.metrics import METRICS, luma_y, psnr_rgb, psnr_y, ssim_rgb, ssim_y


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    target = random.integers(0, 256, (40, 53, 3), dtype=np.uint8)
    noisy = np.clip(target + random.normal(0, 12, target.shape), 0, 255).round().astype(np.uint8)
    return noisy, target


def reference_ssim(first: np.ndarray, second: np.ndarray) -> float:
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(first, second, data_range=255.0, **settings)


def test_agrees_with_scikit_image(images: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, target = images
    output, clean = to_tensor(noisy), to_tensor(target)
    channels = [reference_ssim(noisy[..., c].astype(float), target[..., c].astype(float)) for c in range(3)]
    assert ssim_rgb(output, clean).item() == pytest.approx(np.mean(channels), abs=1e-6)
    luma_noisy, luma_target = rgb2ycbcr(noisy)[..., 0], rgb2ycbcr(target)[..., 0]
    assert ssim_y(output, clean).item() == pytest.approx(reference_ssim(luma_noisy, luma_target), abs=1e-6)
    assert luma_y(output)[0, 0].numpy() == pytest.approx(luma_noisy, abs=1e-3)
    error = np.mean((luma_noisy - luma_target) ** 2)
    assert psnr_y(output, clean).item() == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)
    error = np.mean((noisy.astype(float) - target) ** 2)
    assert psnr_rgb(output, clean).item() == pytest.approx(10 * np.log10(255**2 / error), abs=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_batches_ranges_and_limits(name: str, images: tuple[np.ndarray, np.ndarray]) -> None:
    metric = METRICS[name]
    output, clean = (to_tensor(image) for image in images)
    batch = metric(torch.cat([output, clean]), torch.cat([clean, clean]))
    assert batch.dtype == torch.float64
    assert batch[0].item() == pytest.approx(metric(output, clean).item(), abs=1e-12)
    assert batch[1].item() == pytest.approx(100.0 if name.startswith("psnr") else 1.0)
    assert metric(output * 255, clean * 255, data_range=255.0).item() == pytest.approx(batch[0].item(), abs=1e-5)


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="shapes"):
        psnr_rgb(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17))
    with pytest.raises(DataError, match="11 x 11"):
        ssim_rgb(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("rain100L", {"psnr_rgb": 25.60, "ssim_rgb": 0.815, "psnr_y": 26.99, "ssim_y": 0.830}),
        ("rain100H", {"psnr_rgb": 11.92, "ssim_rgb": 0.346, "psnr_y": 13.35, "ssim_y": 0.374}),
    ],
)
def test_do_nothing_baseline_of_the_shared_pairs(folder: str, expected: dict[str, float], shared_data) -> None:
    totals = dict.fromkeys(METRICS, 0.0)
    paths = sorted((shared_data / folder / "rain").glob("*.png"))
    for path in paths:
        files = (path, shared_data / "rain100L" / "clean" / path.name)
        rainy, clean = (to_tensor(np.array(Image.open(file).convert("RGB"))) for file in files)
        for name, metric in METRICS.items():
            totals[name] += metric(rainy, clean).item() / len(paths)
    for name, value in expected.items():
        assert totals[name] == pytest.approx(value, abs=0.006 if name.startswith("psnr") else 0.0006), name
