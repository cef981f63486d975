"""What can be removed, by the name of `degradation.name`: all that training knows of a degradation is how to draw it.

To add one: functions as `draw_haze` and `vary_haze`, a line here, its name in `DegradationName`
(`config/images.py`); a preset such as `haze` then turns off what assumes rain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rgsud_lib.data.haze import draw_haze, vary_haze
from rgsud_lib.data.rain import draw_rain, vary_rain


@dataclass(frozen=True)
class Degradation:
    """Both draw on clean images, B x 3 x H x W in [0,1], and return images of that shape and range.

    `draw(clean, seed, strength=1.0, count=None, part=slice(None))` is what the warm start learns, deterministic in
    the seed; `vary(clean, rng)` draws more kinds, in which a network that learnt `draw` makes mistakes.
    """

    draw: Callable[..., Tensor]
    vary: Callable[[Tensor, np.random.Generator], Tensor]


DEGRADATIONS = {"rain": Degradation(draw_rain, vary_rain), "haze": Degradation(draw_haze, vary_haze)}
