"""Rain models for synthetic data and tests: streaks with motion, depth and blur, heavy rain with veil, compositions.

Parametric, unlike `rain.py` whose randomised streaks are the warm start's. Every drop is drawn on its own, so the cost
goes with the rain and not with the image. Computed in NumPy on the CPU: the same seed gives the same bits anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rgsud_lib.errors import ConfigError

Seed = tuple[int, ...] | int
Composition = Callable[[Tensor, Tensor], Tensor]
BATCH = 4096  # drops that are drawn at a time, which bounds the memory
FINEST = 0.35  # pixels across that can be told from less; what is finer becomes dimmer instead
STEEPEST = 75.0  # degrees from the vertical; beyond, a streak would be no longer one of rain


@dataclass(frozen=True)
class Streaks:
    """Rain of one direction. Lengths and widths are those of a drop at depth 1, in pixels.

    A drop at depth z is 1/z as long, wide and out of focus, and the number of drops in view grows with z squared
    (pinhole camera; Garg and Nayar, Vision and Rain, IJCV 2007).
    """

    angle: float = 10.0  # degrees from the vertical: the wind
    spread: float = 2.0  # its standard deviation from drop to drop: turbulence
    length: float = 20.0  # how far a drop falls while the shutter is open: motion blur
    width: float = 0.8  # standard deviation across
    density: float = 0.004  # drops per pixel, over all depths
    depths: int = 3  # layers, at depth 1, 2, ...
    defocus: float = 0.0  # standard deviation of the blur of a drop at depth 1 with the lens at infinity
    brightness: float = 0.6  # peak of a drop at depth 1 that is in focus, in [0,1]

    def __post_init__(self) -> None:
        """Raises ConfigError: a value out of its range."""
        limits = {
            "angle": (-STEEPEST, STEEPEST), "spread": (0, 20), "length": (0, 500), "width": (0.1, 50),
            "density": (0, 1), "depths": (1, 20), "defocus": (0, 50), "brightness": (0, 1),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ConfigError(f"rain {name}={value}; expected a value from {low} to {high}")


LIGHT = (Streaks(),)
HEAVY = tuple(  # several directions at once, as Rain100H has
    Streaks(angle=angle, length=30.0, width=1.0, density=0.004, defocus=1.0, brightness=0.7)
    for angle in (-40.0, -20.0, 0.0, 20.0, 40.0)
)


def linear(clean: Tensor, rain: Tensor) -> Tensor:
    """O = B + R, clipped to [0,1]: the additive model (Li et al., CVPR 2016; Rain100L of Yang et al., CVPR 2017)."""
    return (clean + rain).clamp(0, 1)


def screen(clean: Tensor, rain: Tensor) -> Tensor:
    """O = B + R - B R: the screen blend, which never clips (Luo et al., ICCV 2015)."""
    return clean + rain - clean * rain


def add_streaks(clean: Tensor, seed: Seed, rain: Sequence[Streaks] = LIGHT, compose: Composition = linear) -> Tensor:
    """Clean B x 3 x H x W in [0,1] to rainy images of the same shape, each with its own rain."""
    layer = streak_layers(clean.shape[0], clean.shape[2], clean.shape[3], seed, rain)
    return compose(clean, layer.to(clean.device, clean.dtype))


def add_heavy_rain(
    clean: Tensor,
    seed: Seed,
    rain: Sequence[Streaks] = HEAVY,
    veil: float = 0.35,
    airlight: float = 0.75,
    depth: Tensor | None = None,
) -> Tensor:
    """Streaks under a veil of rain too far to be seen as drops: O = T (B + sum of S) + (1 - T) A, T = exp(-veil d).

    Clean B x 3 x H x W in [0,1] to the same shape. `veil` is the extinction per unit of depth, `airlight` A the
    veil's grey, `depth` d of the scene B x 1 x H x W (about 1; None: drawn, smooth and growing upwards). Streaks are
    under the veil, as in Li et al., Heavy Rain Image Restoration, CVPR 2019; JORDER (Yang et al., CVPR 2017) has the
    same with a constant T. Raises ConfigError: veil or airlight out of range, depth of another shape.
    """
    count, _, height, width = clean.shape
    if veil < 0 or not 0 <= airlight <= 1:
        raise ConfigError(f"rain veil={veil}, airlight={airlight}; expected veil >= 0 and airlight from 0 to 1")
    if depth is not None and depth.shape != (count, 1, height, width):
        raise ConfigError(f"depth has shape {tuple(depth.shape)}; expected {(count, 1, height, width)}")
    scene = draw_depth(count, height, width, seed) if depth is None else depth
    through = torch.exp(-veil * scene.to(clean.device, clean.dtype))
    layer = streak_layers(count, height, width, seed, rain).to(clean.device, clean.dtype)
    return (through * (clean + layer) + (1 - through) * airlight).clamp(0, 1)


def draw_depth(count: int, height: int, width: int, seed: Seed) -> Tensor:
    """A stand-in for a scene's depth, `count` x 1 x height x width, from 0.5 to 1.5: smooth, farther upwards (ours)."""
    noise = np.stack([_generator(seed, index, 1).random((1, 4, 4), np.float32) for index in range(count)])
    smooth = F.interpolate(torch.from_numpy(noise), size=(height, width), mode="bilinear", align_corners=True)
    upwards = torch.linspace(1, 0, height).view(1, 1, height, 1)
    return 0.5 + 0.5 * smooth + 0.5 * upwards


def streak_layers(count: int, height: int, width: int, seed: Seed, rain: Sequence[Streaks] = LIGHT) -> Tensor:
    """`count` independent layers of rain, the sum of all of `rain`, each 1 x height x width, in [0,1].

    Image n's rain depends on `seed` and n alone, not on how many there are.
    """
    layers = np.zeros((count, height, width), np.float32)
    for index in range(count):
        generator = _generator(seed, index, 0)
        for streaks in rain:
            for depth, share in zip(range(1, streaks.depths + 1), _shares(streaks.depths), strict=True):
                layers[index] += _draw(generator, height, width, streaks, depth, share)
    return torch.from_numpy(layers).clamp_(0, 1)[:, None]


def _generator(seed: Seed, index: int, stream: int) -> np.random.Generator:
    return np.random.default_rng((*(seed if isinstance(seed, tuple) else (seed,)), index, stream))


def _shares(depths: int) -> list[float]:
    volumes = [depth**2 for depth in range(1, depths + 1)]
    return [volume / sum(volumes) for volume in volumes]


def _draw(
    generator: np.random.Generator, height: int, width: int, streaks: Streaks, depth: int, share: float
) -> np.ndarray:
    """One layer, float32 height x width: drops in view and just outside, drawn `BATCH` at a time."""
    length, thin = streaks.length / depth, streaks.width / depth
    sigma = math.hypot(max(FINEST, thin), streaks.defocus / depth)
    margin = math.ceil(length / 2 + 3 * sigma) + 1
    tall, wide = height + 2 * margin, width + 2 * margin
    drops = generator.poisson(streaks.density * share * tall * wide)
    rows = generator.random(drops, np.float32) * tall - margin
    columns = generator.random(drops, np.float32) * wide - margin
    bent = generator.standard_normal(drops, np.float32)
    angles = np.radians((streaks.angle + streaks.spread * bent).clip(-STEEPEST, STEEPEST))
    lengths = length * (0.75 + 0.5 * generator.random(drops, np.float32))
    peaks = streaks.brightness * thin / sigma * (0.5 + 0.5 * generator.random(drops, np.float32))
    canvas = np.zeros(height * width, np.float32)
    for start in range(0, drops, BATCH):
        some = slice(start, start + BATCH)
        places, light = _render(
            rows[some], columns[some], angles[some], lengths[some], peaks[some], sigma, margin, (height, width)
        )
        canvas += np.bincount(places, light, height * width).astype(np.float32)
    return canvas.reshape(height, width)


def _render(
    rows: np.ndarray, columns: np.ndarray, angles: np.ndarray, lengths: np.ndarray, peaks: np.ndarray,
    sigma: float, margin: int, size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Flat pixel indices and the light there of some drops: Gaussian across, soft-ended along, anti-aliased."""
    sine, cosine = (function(angles)[:, None, None] for function in (np.sin, np.cos))
    reach = math.ceil(3 * sigma / float(cosine.min(initial=1))) if len(rows) else 0
    down = np.round(rows).astype(np.int32)[:, None] + np.arange(-margin, margin + 1, dtype=np.int32)
    below = (down - rows[:, None]).astype(np.float32)[:, :, None]
    axis = columns[:, None, None] + below * (sine / cosine)
    across = np.round(axis).astype(np.int32) + np.arange(-reach, reach + 1, dtype=np.int32)
    aside = (across - columns[:, None, None]).astype(np.float32)
    along, beside = below * cosine + aside * sine, aside * cosine - below * sine
    soft = np.maximum(1, lengths / 6)[:, None, None]
    ends = ((lengths[:, None, None] / 2 - np.abs(along)) / soft + 0.5).clip(0, 1)
    light = peaks[:, None, None] * ends * np.exp(beside**2 / (-2 * sigma**2))
    down = np.broadcast_to(down[:, :, None], across.shape)
    inside = (down >= 0) & (down < size[0]) & (across >= 0) & (across < size[1]) & (ends > 0)
    return down[inside] * size[1] + across[inside], light[inside]
