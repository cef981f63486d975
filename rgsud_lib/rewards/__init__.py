"""Scorers by name. A scorer may see the rainy input besides the output; higher is better, always.

To add one: write a class as in `scorer.py`, name it in `rgsud_lib/scorer_names.py`, and add a line to `SCORERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rgsud_lib.config import Config
from rgsud_lib.errors import ConfigError
from rgsud_lib.rewards.scorer import Scorer
from rgsud_lib.scorer_names import DOWNLOADED, PYIQA, parse_scorer


@dataclass(frozen=True)
class Ingredients:
    """What scorers are made from: settings, the user's clean images (uint8 H x W x 3), the critic's file, a device."""

    config: Config
    clean: Sequence[np.ndarray]
    critic: Path | None = None
    device: str = "cpu"


def _critic(given: Ingredients) -> Scorer:
    from rgsud_lib.rewards.critic import Critic

    if given.critic is None:
        raise ConfigError("no critic was trained: run prepare with --set critic.enabled=true, or name another scorer")
    return Critic.load(given.critic)


def _clip_iqa(given: Ingredients) -> Scorer:
    from rgsud_lib.rewards.clip_iqa import ClipIqa

    return ClipIqa.load(given.config.scorers.clip_iqa, given.device)


def _daclip(given: Ingredients) -> Scorer:
    from rgsud_lib.rewards.daclip import Daclip

    return Daclip.load(given.config.scorers.daclip, given.device)


def _decorrelation(given: Ingredients) -> Scorer:
    from rgsud_lib.rewards.decorrelation import Decorrelation

    return Decorrelation()


def _niqe(given: Ingredients) -> Scorer:
    from rgsud_lib.rewards.niqe import Niqe

    return Niqe.fit(given.clean)


def _piqe(given: Ingredients) -> Scorer:
    from rgsud_lib.rewards.piqe import Piqe

    return Piqe()


def _rain_layer(given: Ingredients) -> Scorer:
    from rgsud_lib.rewards.rain_layer import RainLayer

    return RainLayer()


SCORERS: dict[str, Callable[[Ingredients], Scorer]] = {
    "clip_iqa": _clip_iqa,
    "critic": _critic,
    "daclip": _daclip,
    "decorrelation": _decorrelation,
    "niqe": _niqe,
    "piqe": _piqe,
    "rain_layer": _rain_layer,
}


def build_scorer(
    name: str, config: Config, clean: Sequence[np.ndarray], critic: Path | None = None, device: str = "cpu"
) -> Scorer:
    """The scorer of that name, `pyiqa:METRIC`, or the ensemble of a sum such as `critic+2*decorrelation`.

    Those with a model of clean images fit it on `clean` (uint8 H x W x 3); `critic` is the file that prepare
    left. Raises ConfigError for an unknown name, BundleError where weights are missing.
    """
    weights = parse_scorer(name)
    given = Ingredients(config, clean, critic, device)
    members = [_build(member, given) for member in weights]
    if len(members) == 1:
        return members[0]
    from rgsud_lib.rewards.ensemble import Ensemble

    return Ensemble.fit(name, members, list(weights.values()), config.scorers.combine, clean, config.degradation.name)


def require_weights(name: str, config: Config) -> None:
    """Fail now, not after training, where the weights of one of that scorer's members cannot be had."""
    for member in parse_scorer(name):
        if member in DOWNLOADED or member.startswith(PYIQA):
            _build(member, Ingredients(config, []))


def _build(name: str, given: Ingredients) -> Scorer:
    if name.startswith(PYIQA):
        from rgsud_lib.rewards.pyiqa_backed import PyiqaScorer

        return PyiqaScorer(name.removeprefix(PYIQA), given.device)
    return SCORERS[name](given)
