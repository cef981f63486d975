"""Scorers by name. A scorer may see the rainy input besides the output; higher is better, always.

To add one: write a class with `name`, `version`, `higher_is_better` and `__call__`, and a line below.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from rgsud_lib.errors import ConfigError
from rgsud_lib.rewards.decorrelation import Decorrelation
from rgsud_lib.rewards.rain_layer import RainLayer


class Scorer(Protocol):
    """`scorer(output, rainy)`: two B x 3 x H x W in [0,1] to B float32 scores on the CPU, deterministic.

    `version` digests weights and settings: scores of different versions are never compared.
    `higher_is_better` is the native direction, for display.
    """

    name: str
    version: str
    higher_is_better: bool

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor: ...


def _niqe(clean: Sequence[np.ndarray]) -> Scorer:
    from rgsud_lib.rewards.niqe import Niqe

    return Niqe.fit(clean)


SCORERS: dict[str, Callable[[Sequence[np.ndarray]], Scorer]] = {
    "decorrelation": lambda clean: Decorrelation(),
    "niqe": _niqe,
    "rain_layer": lambda clean: RainLayer(),
}


def build_scorer(name: str, clean: Sequence[np.ndarray]) -> Scorer:
    """The scorer of that name; those with a model of clean images fit it on `clean` (uint8 H x W x 3).

    Raises ConfigError for an unknown name, with the nearest and all known ones.
    """
    if name not in SCORERS:
        near = difflib.get_close_matches(name, SCORERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown scorer {name!r}; {hint}known: {', '.join(SCORERS)}")
    return SCORERS[name](clean)
