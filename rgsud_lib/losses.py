"""Losses as small named functions of image tensors (B x 3 x H x W in [0,1]); each returns a scalar to minimise."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@functools.cache
def gaussian_line(size: int, sigma: float) -> Tensor:
    """`size` Gaussian weights that sum to 1."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    return (line / line.sum()).float()


def gaussian_blur(images: Tensor, size: int, sigma: float) -> Tensor:
    """B x C x H x W blurred over the valid region (size - 1 smaller): a Gaussian separates into two passes."""
    channels = images.shape[1]
    line = gaussian_line(size, sigma).to(images)
    across = F.conv2d(images, line.view(1, 1, 1, size).expand(channels, 1, 1, size), groups=channels)
    return F.conv2d(across, line.view(1, 1, size, 1).expand(channels, 1, size, 1), groups=channels)


def negative_psnr(output: Tensor, target: Tensor, eps: float = 1e-8) -> Tensor:
    """Minus the mean PSNR in dB (NAFNet's training loss); L_PSNR of L_Der, paper section 3.2."""
    return 10 / math.log(10) * torch.log((output - target).square().mean(dim=(1, 2, 3)) + eps).mean()


def l1_mse_loss(output: Tensor, target: Tensor) -> Tensor:
    """Half the L1 and 15 times the squared error (ours); both pull alike at an error of 1/60.

    L1 alone settles for leaving rain in where its presence is in doubt (a median); PSNR asks for the mean.
    """
    return (F.l1_loss(output, target) + 30 * F.mse_loss(output, target)) / 2


def ssim_loss(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM, 11x11 Gaussian of sigma 1.5, mean over channels (Wang et al. 2004); L_SSIM of L_Der.

    In float32 also under autocast: variances are small differences of large numbers.
    """
    with torch.autocast(output.device.type, enabled=False):
        output, target = output.float(), target.float()
        moments = torch.cat([output, target, output * output, target * target, output * target])
        mean_o, mean_t, square_o, square_t, product = gaussian_blur(moments, 11, 1.5).split(output.shape[0])
        c1, c2 = 0.01**2, 0.03**2
        numerator = (2 * mean_o * mean_t + c1) * (2 * (product - mean_o * mean_t) + c2)
        denominator = (mean_o**2 + mean_t**2 + c1) * (square_o - mean_o**2 + square_t - mean_t**2 + c2)
        return 1 - (numerator / denominator).mean()


PIXEL_LOSSES = {"psnr": negative_psnr, "l1": F.l1_loss, "l1_mse": l1_mse_loss}


def reconstruction_loss(output: Tensor, target: Tensor, pixel_loss: str, ssim_weight: float) -> Tensor:
    """L_PSNR, in the form that `pixel_loss` names, and weighted L_SSIM (L_Der, paper section 3.2)."""
    return PIXEL_LOSSES[pixel_loss](output, target) + ssim_weight * ssim_loss(output, target)


def lsgan_loss(decisions: Tensor, real: bool) -> Tensor:
    """Least-squares GAN (Mao et al., ICCV 2017): distance of the patch decisions from 1 (real) or 0 (fake)."""
    return (decisions - float(real)).square().mean()


def lsgan_discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Half the sum of what D errs by on real images and on fakes, to which no gradient goes."""
    true, false = discriminator(torch.cat([real, fake.detach()])).chunk(2)
    return (lsgan_loss(true, real=True) + lsgan_loss(false, real=False)) / 2


def hinge_generator_loss(decisions: Tensor) -> Tensor:
    """Hinge GAN (Lim and Ye, 2017), the generator's side: minus the mean decision on fakes."""
    return -decisions.mean()


def hinge_discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Half the sum of max(0, 1 - D(real)) and max(0, 1 + D(fake)); no gradient to the fakes."""
    true, false = discriminator(torch.cat([real, fake.detach()])).chunk(2)
    return (F.relu(1 - true).mean() + F.relu(1 + false).mean()) / 2


def patch_nce_loss(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """PatchNCE (CUT, ECCV 2020, equation 3): which of an image's patches is this one? B x P x C of unit length each.

    No gradient to the keys. In float32 also under autocast: the logits are many times larger than their differences.
    """
    with torch.autocast(queries.device.type, enabled=False):
        logits = queries.float() @ keys.detach().float().transpose(1, 2) / temperature
        own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[0], -1)
        return F.cross_entropy(logits.flatten(0, 1), own.flatten())


def layer_contrast_loss(image: Tensor, rain: Tensor, temperature: float) -> Tensor:
    """Layer contrast (NLCL, CVPR 2022, its released DisNCELoss): N groups of patches, N x K x C and N x M x C of unit
    length, each patch pulled towards its own layer's and pushed away from the other's (Khosla et al., NeurIPS 2020,
    equation 2, of two classes). In float32 also under autocast, as `patch_nce_loss`.
    """
    with torch.autocast(image.device.type, enabled=False):
        patches = torch.cat([image, rain], dim=1).float()
        of_image = torch.arange(patches.shape[1], device=patches.device) < image.shape[1]
        alone = torch.eye(patches.shape[1], dtype=torch.bool, device=patches.device)
        logits = (patches @ patches.transpose(1, 2) / temperature).masked_fill(alone, -torch.inf)
        likelihood = torch.log_softmax(logits, dim=2)
        friends = (of_image[:, None] == of_image) & ~alone
        return -(likelihood.where(friends, 0.0).sum(2) / friends.sum(1)).mean()


def frequency_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of the Fourier transforms, scaled so as to keep the energy of the images (DCD-GAN)."""
    with torch.autocast(output.device.type, enabled=False):
        difference = torch.fft.fft2((output - target).float(), norm="ortho")
    return (difference.real.square() + difference.imag.square()).mean()


def achromatic_loss(difference: Tensor) -> Tensor:
    """Channel consistency of a rain layer: L1 between each two of its channels (CSUD, CVPR 2025)."""
    red, green, blue = difference.unbind(1)
    return F.l1_loss(red, green) + F.l1_loss(green, blue) + F.l1_loss(blue, red)


def self_reinforced_loss(restored: Tensor, reward: Tensor, distance: str) -> Tensor:
    """L_re = ||B_rw - B_r||^2 with mean reduction (paper section 3.3), or its L1 form (ours); no gradient to B_rw."""
    return {"mse": F.mse_loss, "l1": F.l1_loss}[distance](restored, reward.detach())
