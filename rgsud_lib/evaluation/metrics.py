"""Full-reference metrics, the convention in each name: `_rgb` mean over the channels, `_y` BT.601 luma.

Papers that mix the two conventions differ by 1-2 dB. All functions take B x 3 x H x W tensors and
return B float64 values; `data_range` is 1 for images in [0,1] and 255 for [0,255].
"""

from __future__ import annotations

import torch
from torch import Tensor

from rgsud_lib.errors import DataError

WINDOW, SIGMA = 11, 1.5
PSNR_LIMIT = 100.0


def psnr_rgb(output: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB over all channels, at most 100 (which identical images get)."""
    return _psnr(*_comparable(output, target, data_range))


def psnr_y(output: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """PSNR in dB of the luma (`luma_y`), peak 255, as MATLAB evaluation scripts of deraining papers compute it."""
    output, target = _comparable(output, target, data_range)
    return _psnr(luma_y(output) / 255, luma_y(target) / 255)


def ssim_rgb(output: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity (Wang 2004), mean over the channels; see `_ssim`."""
    return _ssim(*_comparable(output, target, data_range))


def ssim_y(output: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity (Wang 2004) of the luma, dynamic range 255; see `_ssim`."""
    output, target = _comparable(output, target, data_range)
    return _ssim(luma_y(output) / 255, luma_y(target) / 255)


METRICS = {"psnr_rgb": psnr_rgb, "ssim_rgb": ssim_rgb, "psnr_y": psnr_y, "ssim_y": ssim_y}


def luma_y(images: Tensor) -> Tensor:
    """BT.601 luma 16..235 of RGB in [0,1], B x 1 x H x W: MATLAB's rgb2ycbcr on doubles (times 255, not rounded)."""
    red, green, blue = images.unbind(1)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue)[:, None]


def _comparable(output: Tensor, target: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    if output.shape != target.shape or output.ndim != 4 or output.shape[1] != 3:
        raise DataError(
            f"cannot compare images of shapes {tuple(output.shape)} and {tuple(target.shape)}; "
            "expected the same B x 3 x H x W"
        )
    return output.double() / data_range, target.double() / data_range


def _psnr(output: Tensor, target: Tensor) -> Tensor:
    error = (output - target).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).clamp(max=PSNR_LIMIT)


def _ssim(output: Tensor, target: Tensor) -> Tensor:
    """11 x 11 Gaussian of sigma 1.5, only windows that lie wholly inside, K1 = 0.01, K2 = 0.03, peak 1."""
    if min(output.shape[-2:]) < WINDOW:
        raise DataError(f"SSIM needs at least {WINDOW} x {WINDOW} pixels, got {tuple(output.shape[-2:])}; leave it out")
    mean_o, mean_t = _blur(output), _blur(target)
    variance_o = _blur(output * output) - mean_o.square()
    variance_t = _blur(target * target) - mean_t.square()
    covariance = _blur(output * target) - mean_o * mean_t
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_o * mean_t + c1) / (mean_o.square() + mean_t.square() + c1)
    structure = (2 * covariance + c2) / (variance_o + variance_t + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _blur(images: Tensor) -> Tensor:
    """Gaussian window means wherever the window fits. Sums of shifted views: PyTorch's float64 conv2d is slow."""
    offsets = torch.arange(WINDOW, dtype=images.dtype) - WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).tolist()
    height, width = images.shape[-2] - WINDOW + 1, images.shape[-1] - WINDOW + 1
    rows = sum(weight * images[..., shift : shift + height, :] for shift, weight in enumerate(kernel))
    return sum(weight * rows[..., shift : shift + width] for shift, weight in enumerate(kernel))
