"""Restormer (Zamir et al., CVPR 2022, arXiv 2111.09881): a U-shaped transformer that attends over channels.

Its cost is linear in the number of pixels. The blocks are shared with DRSformer and NeRD-Rain. 26.1 M parameters
as published; the authors' own code has an academic licence, this is written from the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.networks.layers import LayerNorm2d, pad_to_multiple, zero_start

EXPANSION = 2.66  # hidden channels of a feed-forward, relative to its width
Block = Callable[[int, int], nn.Module]  # (channels, attention heads)


def conv(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)


class ChannelAttention(nn.Module):
    """Multi-head attention between channels, after depthwise convolutions (paper, section 3.1)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.project_in = nn.Sequential(conv(channels, 3 * channels), conv(3 * channels, 3 * channels, 3, 3 * channels))
        self.project_out = conv(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        query, key, value = (
            part.flatten(2).unflatten(1, (self.heads, -1)) for part in self.project_in(features).chunk(3, dim=1)
        )
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * self.temperature
        return self.project_out((self.weigh(scores) @ value).flatten(1, 2).unflatten(2, features.shape[-2:]))

    def weigh(self, scores: Tensor) -> Tensor:
        """Attention weights, B x heads x C x C, of the scores."""
        return scores.softmax(dim=-1)


class GatedFeedForward(nn.Module):
    """Feed-forward whose one half gates the other, after depthwise convolutions (paper, section 3.2)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = int(channels * EXPANSION)
        self.project_in = nn.Sequential(conv(channels, 2 * hidden), conv(2 * hidden, 2 * hidden, 3, 2 * hidden))
        self.project_out = conv(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        gate, value = self.project_in(features).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward, each residual and after a LayerNorm."""

    def __init__(
        self,
        channels: int,
        heads: int,
        attention: Callable[[int, int], nn.Module] = ChannelAttention,
        feed_forward: Callable[[int], nn.Module] = GatedFeedForward,
    ):
        super().__init__()
        self.norm1, self.norm2 = LayerNorm2d(channels, 1e-5), LayerNorm2d(channels, 1e-5)
        self.attention, self.feed_forward = attention(channels, heads), feed_forward(channels)

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.attention(self.norm1(features))
        return features + self.feed_forward(self.norm2(features))


class Encoder(nn.Module):
    """`blocks[i]` blocks at the i-th scale, `width` channels at the first, twice as many at each next; fine first."""

    def __init__(self, width: int, blocks: Sequence[int], block: Block = TransformerBlock):
        super().__init__()
        widths = [width * 2**level for level in range(len(blocks))]
        self.levels = nn.ModuleList(stack(block, *item) for item in zip(widths, heads(blocks), blocks, strict=True))
        self.down = nn.ModuleList(nn.Sequential(conv(fine, fine // 2, 3), nn.PixelUnshuffle(2)) for fine in widths[:-1])

    def forward(self, features: Tensor) -> list[Tensor]:
        outputs = [self.levels[0](features)]
        for down, level in zip(self.down, self.levels[1:], strict=True):
            outputs.append(level(down(outputs[-1])))
        return outputs


class Decoder(nn.Module):
    """From the encoder's coarsest scale back to the first. `wide`: the first scale keeps its skip's channels too."""

    def __init__(self, width: int, blocks: Sequence[int], block: Block = TransformerBlock, wide: bool = True):
        super().__init__()
        widths = [width * 2**level for level in range(len(blocks) + 1)]
        inner = [2 * width if wide else width, *widths[1:-1]]
        self.up = nn.ModuleList(upsample(coarse) for _, coarse in pairwise(widths))
        self.merge = nn.ModuleList(
            nn.Identity() if 2 * fine == kept else conv(2 * fine, kept)
            for fine, kept in zip(widths[:-1], inner, strict=True)
        )
        self.levels = nn.ModuleList(stack(block, *item) for item in zip(inner, heads(blocks), blocks, strict=True))

    def forward(self, encoded: list[Tensor]) -> Tensor:
        features = encoded[-1]
        for level in reversed(range(len(self.levels))):
            joined = torch.cat([self.up[level](features), encoded[level]], dim=1)
            features = self.levels[level](self.merge[level](joined))
        return features


class UTransformer(nn.Module):
    """B x 3 x H x W in [0,1] to the restored image (not clamped): embed, encode, decode, refine, add to the input."""

    def __init__(self, width: int, blocks: Sequence[int], embed: nn.Module, block: Block, refine: nn.Module):
        super().__init__()
        self.embed, self.refine = embed, refine
        self.encoder = Encoder(width, blocks, block)
        self.decoder = Decoder(width, blocks[:-1], block)
        self.head = zero_start(conv(2 * width, 3, 3))
        self.stride = 2 ** (len(blocks) - 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        features = self.decoder(self.encoder(self.embed(pad_to_multiple(images, self.stride))))
        return images + self.head(self.refine(features))[..., :height, :width]


class Restormer(UTransformer):
    """`blocks` at each scale, `refinement` at the end."""

    def __init__(self, width: int = 48, blocks: Sequence[int] = (4, 6, 6, 8), refinement: int = 4):
        refine = stack(TransformerBlock, 2 * width, 1, refinement)
        super().__init__(width, blocks, conv(3, width, 3), TransformerBlock, refine)


def stack(block: Block, channels: int, heads: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(block(channels, heads) for _ in range(count)))


def heads(blocks: Sequence[int]) -> list[int]:
    """One attention head at the first scale, twice as many at each next."""
    return [2**level for level in range(len(blocks))]


def upsample(channels: int) -> nn.Sequential:
    """Twice the size, half the channels."""
    return nn.Sequential(conv(channels, 2 * channels, 3), nn.PixelShuffle(2))
