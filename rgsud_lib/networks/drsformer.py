"""DRSformer (Chen et al., CVPR 2023, arXiv 2303.11950): Restormer's shape with sparse attention.

Attention keeps only the strongest channels, at four degrees of sparsity; the feed-forward mixes two scales; a
mixture of small convolutions begins and ends (not used by the authors for Rain200L and SPA-Data). 33.7 M parameters
as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rgsud_lib.networks.restormer import EXPANSION, ChannelAttention, TransformerBlock, UTransformer, conv

KEPT = ((1, 2), (2, 3), (3, 4), (4, 5))  # shares of the channels that attention keeps
MIXTURE_STEPS = 4


class SparseAttention(ChannelAttention):
    """The weighted sum of attentions to the strongest half, two thirds, three quarters, four fifths (TKSA)."""

    def __init__(self, channels: int, heads: int):
        super().__init__(channels, heads)
        self.shares = nn.Parameter(torch.full((len(KEPT),), 0.2))

    def weigh(self, scores: Tensor) -> Tensor:
        channels = scores.shape[-1]
        ordered = scores.sort(dim=-1, descending=True).values
        weights = torch.zeros_like(scores)
        for share, (part, whole) in zip(self.shares, KEPT, strict=True):
            weakest = ordered[..., max(0, channels * part // whole - 1)].unsqueeze(-1)
            weights = weights + share * scores.masked_fill(scores < weakest, float("-inf")).softmax(dim=-1)
        return weights


class MixedScaleFeedForward(nn.Module):
    """Two branches of depthwise convolutions, 3 and 5 pixels wide, that exchange halves (MSFN)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = int(channels * EXPANSION)
        self.project_in = conv(channels, 2 * hidden)
        self.first = nn.ModuleList(conv(2 * hidden, 2 * hidden, size, 2 * hidden) for size in (3, 5))
        self.second = nn.ModuleList(conv(2 * hidden, hidden, size, hidden) for size in (3, 5))
        self.project_out = conv(2 * hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        features = self.project_in(features)
        halves = zip(*(torch.relu(branch(features)).chunk(2, dim=1) for branch in self.first), strict=True)
        mixed = (torch.relu(branch(torch.cat(half, dim=1))) for branch, half in zip(self.second, halves, strict=True))
        return self.project_out(torch.cat(list(mixed), dim=1))


class Mixture(nn.Module):
    """Four steps of eight weighted operations each; the weights are those of the input's channel means (MEFC)."""

    def __init__(self, channels: int):
        super().__init__()
        experts = MIXTURE_STEPS * 8
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2 * experts, 1), nn.ReLU(), nn.Conv2d(2 * experts, experts, 1)
        )
        self.enter = nn.Sequential(conv(channels, channels), nn.ReLU())
        self.steps = nn.ModuleList(_operations(channels) for _ in range(MIXTURE_STEPS))
        self.merge = nn.ModuleList(nn.Sequential(conv(8 * channels, channels), nn.ReLU()) for _ in range(MIXTURE_STEPS))

    def forward(self, features: Tensor) -> Tensor:
        weights = self.weigh(features).unflatten(1, (MIXTURE_STEPS, 8)).softmax(dim=2)
        features = self.enter(features)
        for number, (operations, merge) in enumerate(zip(self.steps, self.merge, strict=True)):
            results = [operation(features) * weights[:, number, expert : expert + 1]
                       for expert, operation in enumerate(operations)]  # fmt: skip
            features = torch.relu(features + merge(torch.cat(results, dim=1)))
        return features


class DRSformer(UTransformer):
    """`blocks` at each scale; `mixture`: with a mixture of convolutions before and after them."""

    def __init__(self, width: int = 48, blocks: Sequence[int] = (4, 6, 6, 8), mixture: bool = True):
        block = partial(TransformerBlock, attention=SparseAttention, feed_forward=MixedScaleFeedForward)
        embed = nn.Sequential(conv(3, width, 3), Mixture(width) if mixture else nn.Identity())
        super().__init__(width, blocks, embed, block, Mixture(2 * width) if mixture else nn.Identity())


def _operations(channels: int) -> nn.ModuleList:
    """Separable convolutions of 1 to 7 pixels, dilated ones of 3 to 7, and the mean over 3 x 3 pixels."""
    separable = (
        nn.Sequential(_depthwise(channels, size), nn.ReLU(), _depthwise(channels, size)) for size in (1, 3, 5, 7)
    )
    dilated = (_depthwise(channels, size, dilation=2) for size in (3, 5, 7))
    return nn.ModuleList([*separable, *dilated, nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)])


def _depthwise(channels: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    depthwise = nn.Conv2d(channels, channels, size, padding=padding, dilation=dilation, groups=channels, bias=False)
    return nn.Sequential(depthwise, conv(channels, channels))
