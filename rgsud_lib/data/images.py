"""The image tensor contract: float32 in [0,1], B x 3 x H x W, RGB."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def check_images(images: Tensor, name: str = "images") -> Tensor:
    """Return `images` if they keep the contract (finite, B x 3 x H x W, floating point, within [0,1] up to 1e-3).

    Raises TypeError or ValueError naming the value, the expectation and the fix.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"{name} is {kind}; expected a float tensor in [0,1]: use to_tensor() on uint8 arrays")
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"{name} has shape {tuple(images.shape)}; expected B x 3 x H x W in RGB: "
            "add a batch axis or convert the channels"
        )
    low, high = (float(value) for value in torch.aminmax(images.detach())) if images.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"{name} spans [{low:.4g}, {high:.4g}]; expected finite values in [0,1]: clamp or divide by 255"
        )
    return images


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8, uint16 or float [0,1] H x W x 3 (or B x H x W x 3) to float32 [0,1] B x 3 x H x W."""
    batch = torch.from_numpy(np.require(image if image.ndim == 4 else image[None], requirements=["C", "W"]))
    floats = batch.permute(0, 3, 1, 2).float()
    return floats if batch.is_floating_point() else floats.div_(np.iinfo(image.dtype).max)


def to_array(images: Tensor, dtype: np.dtype | type) -> np.ndarray:
    """float [0,1] B x 3 x H x W, clipped, to B x H x W x 3 of a type: integers are scaled and rounded to nearest."""
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    clipped = images.detach().float().clamp(0, 1)
    scaled = clipped if kind.is_floating_point else clipped.mul(np.iinfo(dtype).max).round()
    return scaled.to(kind).permute(0, 2, 3, 1).cpu().numpy()


def to_uint8(images: Tensor) -> np.ndarray:
    """`to_array` of uint8."""
    return to_array(images, np.uint8)
