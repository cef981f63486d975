"""The project's only tile and blend path: evaluation, rewards, service and command line share it.

Tiles are read, derained and blended one at a time and finished rows leave at once, so memory is
bounded by one tile and one strip of tiles, whatever the image's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from rgsud_lib.data.images import check_images, to_array, to_tensor
from rgsud_lib.errors import ConfigError


class Mirrored(nn.Module):
    """A derainer's mean over an image and, mirrored back, its mirror image: twice the time, a little better."""

    def __init__(self, derainer: nn.Module):
        super().__init__()
        self.derainer = derainer

    def forward(self, images: Tensor) -> Tensor:
        return (self.derainer(images) + self.derainer(images.flip(-1)).flip(-1)) / 2


def derain(model: nn.Module, rainy: Tensor, tile: int, overlap: int) -> Tensor:
    """Derain a batch, B x 3 x H x W in [0,1]; the result has its shape and device and is clamped to [0,1].

    Whole where both sides are at most `tile` pixels, else in tiles whose linear ramps over at least
    `overlap` pixels add up to one. A network with global pooling (NAFNet's channel attention) sees
    each tile's own mean, so tiled and whole results differ slightly (`benchmarks/inference.py`
    states by how much); where that matters, choose the tile as large as memory allows: from one
    tile on, the result is the whole image's. Raises ConfigError where 2 * overlap >= tile.
    """
    check_images(rainy, "rainy")

    def read(rows: slice, columns: slice) -> Tensor:
        return rainy[..., rows, columns]

    strips = [strip.to(rainy.device) for _, strip in _strips(model, read, *rainy.shape[-2:], tile, overlap)]
    return torch.cat(strips, dim=-2).clamp_(0, 1)


def derain_image(
    model: nn.Module,
    image: np.ndarray,
    tile: int,
    overlap: int,
    advance: Callable[[float], object] | None = None,
    strength: float = 1.0,
) -> np.ndarray:
    """`derain` for one image, H x W x 3, or several of one size, B x H x W x 3: uint8, uint16 or floats in [0,1].

    Only a tile and a strip of tiles exist in floating point. `strength` in [0,1] blends from the image, 0, to what
    the model makes of it, 1. `advance` is told the share of the image that was finished, strip by strip.
    """
    result = np.empty_like(image)

    def read(rows: slice, columns: slice) -> Tensor:
        return to_tensor(image[..., rows, columns, :])

    height, width = image.shape[-3:-1]
    for top, strip in _strips(model, read, height, width, tile, overlap):
        rows = slice(top, top + strip.shape[-2])
        if strength != 1:
            strip = torch.lerp(read(rows, slice(None)), strip.cpu().clamp(0, 1), strength)
        result[..., rows, :, :] = to_array(strip, image.dtype).reshape(result[..., rows, :, :].shape)
        if advance is not None:
            advance(strip.shape[-2] / height)
    return result


@torch.no_grad()
def _strips(
    model: nn.Module, read: Callable[[slice, slice], Tensor], height: int, width: int, tile: int, overlap: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, finished rows B x 3 x rows x width) from top to bottom."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    bands, columns = _axis_tiles(height, tile, overlap), _axis_tiles(width, tile, overlap)
    ends = [top for top, _ in bands[1:]] + [height]
    unfinished: Tensor | None = None
    for (top, row_weights), end in zip(bands, ends, strict=True):
        strip: Tensor | None = None
        for left, column_weights in columns:
            crop = read(slice(top, top + len(row_weights)), slice(left, left + len(column_weights)))
            output = model(crop.to(device, memory_format=torch.channels_last)).float()  # faster, also on CPUs
            if strip is None:
                strip = output.new_zeros(*output.shape[:2], len(row_weights), width)
            weights = (row_weights[:, None] * column_weights).to(device)
            strip[..., left : left + len(column_weights)] += output * weights
        if unfinished is not None:
            strip[..., : unfinished.shape[-2], :] += unfinished
        yield top, strip[..., : end - top, :]
        unfinished = strip[..., end - top :, :].clone()


def _axis_tiles(length: int, tile: int, overlap: int) -> list[tuple[int, Tensor]]:
    """Evenly spread tiles along one axis: (start, weights), the weights of all tiles adding up to 1 everywhere."""
    if not 0 <= 2 * overlap < tile:
        raise ConfigError(f"tile {tile} with overlap {overlap}: the overlap must be less than half of the tile")
    if length <= tile:
        return [(0, torch.ones(length))]
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    ramp = torch.arange(1, tile + 1).div(overlap + 1).clamp(max=1)
    windows = [torch.minimum(ramp if start else torch.ones(tile), ramp.flip(0)) for start in starts[:-1]] + [ramp]
    total = torch.zeros(length)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile] += window
    return [(start, window / total[start : start + tile]) for start, window in zip(starts, windows, strict=True)]
