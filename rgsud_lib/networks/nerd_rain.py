"""NeRD-Rain (Chen et al., CVPR 2024, arXiv 2404.01547): transformers at three image scales with implicit fields.

Coarse to fine, a field over pixel coordinates describes what a scale has seen and is added to the next scale's
input; fine to coarse, the finer scale's latent features are fed back. 22.9 M parameters as published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.networks.layers import pad_to_multiple, zero_start
from rgsud_lib.networks.restormer import Decoder, Encoder, conv, upsample

FREQUENCIES = 4  # of the coordinates' positional encoding
HIDDEN = (256, 256, 256)
SCALES = 3


class NeRDRain(nn.Module):
    """B x 3 x H x W in [0,1] to the full-resolution image (not clamped).

    The three scales have one, two and three U-shaped transformers in a row, `blocks` at each of their scales.
    """

    def __init__(self, width: int = 48, blocks: Sequence[int] = (2, 3, 3)):
        super().__init__()
        self.embed = nn.ModuleList(conv(3, width, 3) for _ in range(SCALES))  # small, middle, full
        self.encoders = nn.ModuleList(
            nn.ModuleList(Encoder(width, blocks) for _ in range(scale + 1)) for scale in range(SCALES)
        )
        self.decoders = nn.ModuleList(
            nn.ModuleList(Decoder(width, blocks[:-1], wide=False) for _ in range(scale + 1)) for scale in range(SCALES)
        )
        self.context = nn.ModuleList(
            nn.ModuleList(conv(width, width, 3) for _ in range(scale)) for scale in range(SCALES)
        )
        self.head = zero_start(conv(width, 3, 3))  # the coarser scales' heads only serve losses on their images
        climb = len(blocks) - 1
        self.climb = nn.ModuleList(
            nn.Sequential(*(upsample(width * 2**level) for level in range(climb, 0, -1))) for _ in range(SCALES - 1)
        )
        self.fields = nn.ModuleList(ImplicitField(width) for _ in range(SCALES - 1))
        self.fuse = nn.ModuleList(Fusion(width * 2**climb) for _ in range(SCALES))
        self.stride = 4 * 2**climb

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        full = pad_to_multiple(images, self.stride)
        encoded = self._coarse_to_fine([full[..., ::4, ::4], full[..., ::2, ::2], full])
        full_latents, fine = self._run(2, encoded[2])
        feedback = [_half(self.fuse[0](*full_latents[:2])), _half(self.fuse[1](*full_latents[1:]))]
        middle_latents, middle = self._run(1, encoded[1], feedback)
        back = _half(self.fuse[2](*middle_latents))
        _, small = self._run(0, encoded[0], [back])
        fine = fine + _double(middle + _double(small))
        return images + self.head(fine)[..., :height, :width]

    def _coarse_to_fine(self, images: list[Tensor]) -> list[list[Tensor]]:
        """Each scale's first encoding; its field and image join the next scale's input."""
        encoded, known = [], images[0]
        for scale in range(SCALES):
            encoded.append(self.encoders[scale][0](self.embed[scale](known)))
            if scale < SCALES - 1:
                seen = known + self.fields[scale](self.climb[scale](encoded[scale][-1]))
                known = images[scale + 1] + _double(seen)
        return encoded

    def _run(self, scale: int, encoded: list[Tensor], feedback: Sequence[Tensor] = ()) -> tuple[list[Tensor], Tensor]:
        """A scale's transformers in a row: their latent features (before feedback), and what the last one decoded."""
        latents = []
        for number, decoder in enumerate(self.decoders[scale]):
            latents.append(encoded[-1])
            if feedback:
                encoded = [*encoded[:-1], encoded[-1] + feedback[number]]
            decoded = decoder(encoded)
            if number < scale:
                encoded = self.encoders[scale][number + 1](self.context[scale][number](decoded))
        return latents, decoded


class ImplicitField(nn.Module):
    """RGB of each pixel from the features around it and its encoded coordinates (INR)."""

    def __init__(self, width: int):
        super().__init__()
        sizes = [9 * width + 4 + 4 * FREQUENCIES, *HIDDEN]
        layers = (nn.Sequential(nn.Conv2d(*pair, 1), nn.ReLU()) for pair in zip(sizes, sizes[1:], strict=False))
        self.layers = nn.Sequential(*layers, nn.Conv2d(HIDDEN[-1], 3, 1))

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        around = F.unfold(features, 3, padding=1).unflatten(2, (height, width))
        rows, columns = (_centres(count, features) for count in (height, width))
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        waves = torch.cat(
            [part(grid * math.pi * 2**power) for power in range(FREQUENCIES) for part in (torch.sin, torch.cos)]
        )
        cell = torch.ones_like(grid) * 2  # the size of a pixel, in units of the published code
        position = torch.cat([grid, waves, cell]).expand(features.shape[0], -1, -1, -1)
        return self.layers(torch.cat([around, position], dim=1))


class Fusion(nn.Module):
    """Two latent features, each weighed against its part that agrees with the other."""

    def __init__(self, channels: int):
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.shares = nn.ModuleList(nn.Conv2d(2 * channels, 2, 3, padding=1) for _ in range(2))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        agreement = torch.sigmoid(self.query(first) * self.key(second))
        total = torch.zeros_like(first)
        for features, share in zip((first, second), self.shares, strict=True):
            agreed = features * agreement
            own, common = share(torch.cat([features, agreed], dim=1)).chunk(2, dim=1)
            total = total + features * own + agreed * common
        return total


def _centres(count: int, like: Tensor) -> Tensor:
    """Pixel centres over [-1, 1]."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) * (2 / count) - 1


def _half(features: Tensor) -> Tensor:
    return features[..., ::2, ::2]


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
