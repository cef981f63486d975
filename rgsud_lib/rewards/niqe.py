"""NIQE: distance of an image's local statistics from those of clean photographs (no reference needed).

Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer", IEEE SPL 20(3),
2013. Written from the paper, with the constants of the authors' MATLAB release where it is silent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rgsud_lib.data.images import check_images, to_tensor
from rgsud_lib.errors import DataError

PATCH = 96
SHARPNESS = 0.75
MAX_FIT_IMAGES = 100
SETTINGS = f"niqe 1: patch {PATCH}, sharpness {SHARPNESS}, fit images {MAX_FIT_IMAGES}"
FLAT_FEATURES = (10.0, 0.0, *(10.0, 0.0, 0.0, 0.0) * 4) * 2
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


class Niqe:
    """Scorer: minus NIQE, so higher is better. Clean photographs get about -3, heavy noise -30 and less."""

    name = "niqe"
    higher_is_better = False

    def __init__(self, mean: np.ndarray, covariance: np.ndarray) -> None:
        self.mean = torch.from_numpy(np.array(mean, dtype=np.float64).reshape(36))
        self.covariance = torch.from_numpy(np.array(covariance, dtype=np.float64).reshape(36, 36))
        parameters = self.mean.numpy().tobytes() + self.covariance.numpy().tobytes()
        self.version = hashlib.sha256(SETTINGS.encode() + parameters).hexdigest()[:16]

    @classmethod
    def from_parameters(cls, mean: np.ndarray, covariance: np.ndarray) -> Niqe:
        """A given pristine model: mean (36) and covariance (36 x 36) of patch features, e.g. the published ones."""
        return cls(mean, covariance)

    @classmethod
    def fit(cls, clean: Sequence[np.ndarray]) -> Niqe:
        """Fit the pristine model on clean photographs, uint8 H x W x 3, both sides at least 96 pixels.

        At most 100 of them, evenly spread over the sequence; smaller ones are passed over. Only
        patches at least 0.75 times as sharp as their image's sharpest count. Raises DataError
        where fewer than two patches remain.
        """
        chosen = np.unique(np.linspace(0, len(clean) - 1, min(len(clean), MAX_FIT_IMAGES)).round().astype(int))
        images = (clean[int(index)] for index in chosen)
        features = [_sharp_features(image) for image in images if min(image.shape[:2]) >= PATCH]
        samples = torch.cat(features) if features else torch.empty(0, 36)
        if len(samples) < 2:
            raise DataError(
                f"NIQE's pristine model got {len(samples)} usable patches from {len(clean)} clean images; "
                f"give clean photographs of at least {PATCH} x {PATCH} pixels, or choose another evaluation.judge"
            )
        return cls(samples.mean(0).numpy(), _shrunk_covariance(samples).numpy())

    def __call__(self, output: Tensor, rainy: Tensor | None = None) -> Tensor:
        """Minus NIQE of each image of `output`, B x 3 x H x W in [0,1]; `rainy` is not looked at.

        Raises DataError for images below 96 x 96 pixels.
        """
        check_images(output, "output")
        return torch.tensor([-self.distance(luma(image)) for image in output.detach().cpu()], dtype=torch.float32)

    def distance(self, plane: Tensor) -> float:
        """NIQE of a luma plane H x W in 0..255 (equation 10 of the paper), finite for any content.

        Flat patches (clipped sky) have no statistics and are left out, as the authors do. Where all
        are flat, the end point of ever flatter patches stands for them: a distance worse than noise.
        """
        features, _ = patch_features(plane)
        valid = features[~features.isnan().any(1)]
        if len(valid) == 0:
            valid = torch.tensor(FLAT_FEATURES, dtype=torch.float64)[None]
        difference = self.mean - valid.mean(0)
        inverse = torch.linalg.pinv((self.covariance + _covariance(valid)) / 2, hermitian=True)
        return float((difference @ inverse @ difference).clamp(min=0).sqrt())


def luma(image: Tensor) -> Tensor:
    """RGB in [0,1], 3 x H x W, to luma 0..255, float64 H x W: 8-bit first, then MATLAB's rgb2gray, rounded."""
    red, green, blue = image.double().mul(255).round()
    return (0.298936021293775 * red + 0.587043074451121 * green + 0.114020904255103 * blue).round()


def patch_features(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Features (patches x 36, NaN in flat patches) and sharpness (patches) of a luma plane's 96 x 96 patches."""
    rows, columns = plane.shape[0] // PATCH, plane.shape[1] // PATCH
    if not rows or not columns:
        raise DataError(
            f"NIQE needs images of at least {PATCH} x {PATCH} pixels, got {plane.shape[0]} x {plane.shape[1]}; "
            "raise data.min_side or set evaluation.judge to another scorer"
        )
    plane = plane[: rows * PATCH, : columns * PATCH]
    fine, deviation = normalise(plane)
    coarse, _ = normalise(_halve(plane))
    features = [_statistics(split_patches(fine, PATCH)), _statistics(split_patches(coarse, PATCH // 2))]
    return torch.cat(features, dim=1), split_patches(deviation, PATCH).mean((1, 2))


def _sharp_features(image: np.ndarray) -> Tensor:
    features, sharpness = patch_features(luma(to_tensor(image)[0]))
    sharp = sharpness > SHARPNESS * sharpness.max()
    return features[sharp & ~features.isnan().any(1)]


def split_patches(plane: Tensor, side: int) -> Tensor:
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    return plane.reshape(rows, side, columns, side).transpose(1, 2).reshape(-1, side, side)


def normalise(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Mean-subtracted contrast-normalised coefficients (equation 1) and local deviation; 7 x 7 Gaussian, sigma 7/6."""
    mean = _blur(plane)
    deviation = (_blur(plane.square()) - mean.square()).abs().sqrt()
    coefficients = (plane - mean) / (deviation + 1)
    # Rounding noise of flat areas (clipped sky) differs between machines; the authors' code counts it, we do not.
    return coefficients * (coefficients.abs() > 1e-8), deviation


def _blur(plane: Tensor) -> Tensor:
    offsets = torch.arange(-3, 4, dtype=plane.dtype)
    kernel = torch.exp(-offsets.square() / (2 * (7 / 6) ** 2))
    kernel = kernel / kernel.sum()
    padded = F.pad(plane[None, None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 7, 1)), kernel.view(1, 1, 1, 7))[0, 0]


def _halve(plane: Tensor) -> Tensor:
    """MATLAB's imresize(plane, 0.5): bicubic (a = -0.5) stretched by two against aliasing, mirrored borders."""
    distance = (torch.arange(8, dtype=plane.dtype) - 3.5).abs() / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel = torch.where(distance <= 1, near, far)
    kernel = kernel / kernel.sum()
    mirrored = torch.from_numpy(np.pad(plane.numpy(), 3, mode="symmetric"))[None, None]
    rows = F.conv2d(mirrored, kernel.view(1, 1, 8, 1), stride=(2, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, 8), stride=(1, 2))[0, 0]


def _statistics(patches: Tensor) -> Tensor:
    """18 features of each patch: GGD shape and scale, then AGGD shape, mean, left and right scale of four products."""
    shape, left, right = _fit_aggd(patches)
    features = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = _fit_aggd(patches * patches.roll(shift, (1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


SHAPES = torch.linspace(0.2, 10, 9801, dtype=torch.float64)
SHAPE_RATIOS = (2 * torch.lgamma(2 / SHAPES) - torch.lgamma(1 / SHAPES) - torch.lgamma(3 / SHAPES)).exp()


def _fit_aggd(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moment-matching fit of an asymmetric generalised Gaussian: shape, left and right scale (equations 5-7)."""
    squares = patches.square()
    left_square = patches.clamp(max=0).square().sum((1, 2)) / (patches < 0).sum((1, 2))
    right_square = patches.clamp(min=0).square().sum((1, 2)) / (patches > 0).sum((1, 2))
    left, right = left_square.sqrt(), right_square.sqrt()
    balance = left / right
    ratio = patches.abs().mean((1, 2)).square() / squares.mean((1, 2))
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1).square()
    above = torch.searchsorted(SHAPE_RATIOS, ratio).clamp(1, len(SHAPES) - 1)
    nearer = (ratio - SHAPE_RATIOS[above - 1] <= SHAPE_RATIOS[above] - ratio).long()
    shape = SHAPES[above - nearer]
    scale = (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp().sqrt()
    return shape, left * scale, right * scale


def _shrunk_covariance(samples: Tensor) -> Tensor:
    """Sample covariance; below 360 patches up to a tenth of it is its diagonal (ours: it is singular below 37)."""
    covariance = _covariance(samples)
    shrinkage = 0.1 * max(0.0, 1 - len(samples) / 360)
    return (1 - shrinkage) * covariance + shrinkage * torch.diag(covariance.diag())


def _covariance(samples: Tensor) -> Tensor:
    return torch.cov(samples.T) if len(samples) > 1 else samples.new_zeros(36, 36)
