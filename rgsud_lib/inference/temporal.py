"""Less flicker in a derained video: the mean over neighbouring frames, along the motion, where they agree. Ours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

FLOW_SIDE = 320  # pixels of the longer side at which motion is estimated
TOLERANCE = 12 / 255  # mean difference at which a neighbour has a third (1/e) of the frame's own weight
WINDOW = 9  # pixels over which that difference is averaged: streaks are thinner, things are not


def smoothed(previous: np.ndarray | None, frame: np.ndarray, following: np.ndarray | None) -> np.ndarray:
    """A frame, uint8 H x W x 3, averaged with its neighbours, None at the video's ends.

    A neighbour is warped onto the frame along the optical flow. Each of its pixels counts by exp(-(d/TOLERANCE)^2), d
    being its difference from the frame's, averaged over WINDOW: what moved otherwise than the flow says, or appears
    in one frame only, stays as it is; a remnant of a streak, thinner than the window, is averaged away.
    """
    own = _tensor(frame)
    total, weights = own.clone(), torch.ones_like(own[:, :1])
    for other in (previous, following):
        if other is not None:
            warped = warp(_tensor(other), optical_flow(frame, other))
            difference = (warped - own).abs().mean(dim=1, keepdim=True)
            difference = avg_pool2d(difference, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
            weight = torch.exp(-((difference / TOLERANCE) ** 2))
            total += weight * warped
            weights += weight
    return (total / weights).mul(255).round().byte()[0].permute(1, 2, 0).numpy()


def optical_flow(frame: np.ndarray, other: np.ndarray) -> Tensor:
    """Where each pixel of `frame` (uint8 H x W x 3) is in `other`: 1 x 2 x H x W, (x, y) displacements in pixels.

    Iterative Lucas-Kanade on greys of at most FLOW_SIDE pixels (Le Besnerais & Champagnat 2005, scikit-image).
    """
    from skimage.registration import optical_flow_ilk

    height, width = frame.shape[:2]
    scale = min(1, FLOW_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    greys = [interpolate(_tensor(image).mean(1, keepdim=True), size, mode="area")[0, 0] for image in (frame, other)]
    rows, columns = optical_flow_ilk(greys[0].numpy(), greys[1].numpy(), radius=7, num_warp=5, prefilter=True)
    flow = torch.from_numpy(np.stack([columns * width / size[1], rows * height / size[0]]))[None].float()
    return interpolate(flow, (height, width), mode="bilinear")


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """`image` (B x C x H x W) sampled at each pixel plus `flow`; beyond the border its last pixels go on."""
    height, width = image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (columns + flow[:, 0]) * 2 / max(width - 1, 1) - 1
    y = (rows + flow[:, 1]) * 2 / max(height - 1, 1) - 1
    return grid_sample(image, torch.stack([x, y], dim=-1), padding_mode="border", align_corners=True)


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
