"""MPRNet (Zamir et al., CVPR 2021, arXiv 2102.02808): three stages, on quarters, halves and the whole image.

Two U-Nets of channel-attention blocks work on patches, a third stage at full resolution ends; supervised attention
hands each stage's image and features on. 3.6 M parameters as published for deraining.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsud_lib.networks.layers import pad_to_multiple, zero_start

Features = list[Tensor]  # of one image (or patch) at three scales, fine first


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


class MPRNet(nn.Module):
    """B x 3 x H x W in [0,1] to the last stage's image (not clamped). `width` channels at full resolution,
    `step` more at each halving, `extra` more in the last stage, whose groups have `blocks` blocks."""

    def __init__(self, width: int = 40, step: int = 20, extra: int = 16, blocks: int = 8):
        super().__init__()
        act = nn.PReLU()  # one slope for the whole network, as published
        scales = [width, width + step, width + 2 * step]
        self.shallow = nn.ModuleList(nn.Sequential(conv(3, width), AttentionBlock(width, act)) for _ in range(3))
        self.encoders = nn.ModuleList([Encoder(scales, act), Encoder(scales, act, fused=True)])
        self.decoders = nn.ModuleList(Decoder(scales, act) for _ in range(2))
        self.hand_on = nn.ModuleList(SupervisedAttention(width) for _ in range(2))
        self.join = nn.ModuleList([conv(2 * width, width), conv(2 * width, width + extra)])
        self.last = FullResolution(scales, width + extra, blocks, act)
        self.tail = zero_start(conv(width + extra, 3))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        whole = pad_to_multiple(images, 8)
        halves = _cut(whole, dim=2)
        quarters = _cut(halves, dim=3)
        encoded = [_join(scale, dim=3) for scale in self.encoders[0](self.shallow[0](quarters))]
        decoded = self.decoders[0](encoded)
        handed = self.hand_on[0](decoded[0], halves)
        features = self.join[0](torch.cat([self.shallow[1](halves), handed], dim=1))
        encoded = [_join(scale, dim=2) for scale in self.encoders[1](features, encoded, decoded)]
        decoded = self.decoders[1](encoded)
        features = torch.cat([self.shallow[2](whole), self.hand_on[1](decoded[0], whole)], dim=1)
        restored = whole + self.tail(self.last(self.join[1](features), encoded, decoded))
        return restored[..., :height, :width]


class AttentionBlock(nn.Module):
    """Two convolutions and channel attention, residual (CAB)."""

    def __init__(self, width: int, act: nn.Module, reduction: int = 4):
        super().__init__()
        self.body = nn.Sequential(conv(width, width), act, conv(width, width))
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv(width, width // reduction, 1), nn.ReLU(),
            conv(width // reduction, width, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        mixed = self.body(features)
        return features + mixed * self.weigh(mixed)


class Encoder(nn.Module):
    """Three scales of two blocks; `fused`: the stage before is added, scale by scale."""

    def __init__(self, scales: list[int], act: nn.Module, fused: bool = False):
        super().__init__()
        self.levels = nn.ModuleList(_pair(width, act) for width in scales)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=0.5, mode="bilinear"), conv(fine, coarse, 1))
            for fine, coarse in zip(scales, scales[1:], strict=False)
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList([conv(width, width, 1), conv(width, width, 1)]) for width in scales if fused
        )

    def forward(self, features: Tensor, encoded: Features = (), decoded: Features = ()) -> Features:
        outputs: Features = []
        for number, level in enumerate(self.levels):
            features = level(features if number == 0 else self.down[number - 1](features))
            if self.fuse:
                of_encoder, of_decoder = self.fuse[number]
                features = features + of_encoder(encoded[number]) + of_decoder(decoded[number])
            outputs.append(features)
        return outputs


class Decoder(nn.Module):
    """From the coarsest scale up, with attended skips; returns all three scales, fine first."""

    def __init__(self, scales: list[int], act: nn.Module):
        super().__init__()
        self.levels = nn.ModuleList(_pair(width, act) for width in scales)
        self.skips = nn.ModuleList(AttentionBlock(width, act) for width in scales[:2])
        self.up = nn.ModuleList(_up(coarse, fine) for fine, coarse in zip(scales, scales[1:], strict=False))

    def forward(self, encoded: Features) -> Features:
        coarse = self.levels[2](encoded[2])
        middle = self.levels[1](self.up[1](coarse) + self.skips[1](encoded[1]))
        return [self.levels[0](self.up[0](middle) + self.skips[0](encoded[0])), middle, coarse]


class SupervisedAttention(nn.Module):
    """The stage's image attends to its features (SAM); the next stage gets these."""

    def __init__(self, width: int):
        super().__init__()
        self.features, self.image, self.attention = conv(width, width), conv(width, 3), conv(3, width)

    def forward(self, features: Tensor, rainy: Tensor) -> Tensor:
        weights = torch.sigmoid(self.attention(rainy + self.image(features)))
        return features + weights * self.features(features)


class FullResolution(nn.Module):
    """Three groups of blocks that never leave full resolution (ORSNet); each takes one scale of the stage before."""

    def __init__(self, scales: list[int], width: int, blocks: int, act: nn.Module):
        super().__init__()
        self.groups = nn.ModuleList(
            nn.Sequential(*(AttentionBlock(width, act) for _ in range(blocks)), conv(width, width)) for _ in scales
        )
        self.encoded, self.decoded = (
            nn.ModuleList(self._full(scales, width, level) for level in range(3)) for _ in "ed"
        )

    @staticmethod
    def _full(scales: list[int], width: int, level: int) -> nn.Sequential:
        climb = (_up(scales[finer], scales[finer - 1]) for finer in range(level, 0, -1))
        return nn.Sequential(*climb, conv(scales[0], width, 1))

    def forward(self, features: Tensor, encoded: Features, decoded: Features) -> Tensor:
        for number, group in enumerate(self.groups):
            features = features + group(features)
            features = features + self.encoded[number](encoded[number]) + self.decoded[number](decoded[number])
        return features


def _cut(images: Tensor, dim: int) -> Tensor:
    """Both halves of a side, as a batch twice as large (sliced: ONNX cannot split a side that it does not know)."""
    middle = images.shape[dim] // 2
    first = images[:, :, :middle] if dim == 2 else images[..., :middle]
    second = images[:, :, middle:] if dim == 2 else images[..., middle:]
    return torch.stack([first, second]).flatten(0, 1)


def _join(patches: Tensor, dim: int) -> Tensor:
    """What `_cut` cut apart."""
    first, second = patches.unflatten(0, (2, -1)).unbind(0)
    return torch.cat([first, second], dim=dim)


def _pair(width: int, act: nn.Module) -> nn.Sequential:
    return nn.Sequential(AttentionBlock(width, act), AttentionBlock(width, act))


def _up(coarse: int, fine: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv(coarse, fine, 1))
