"""Which trainings make each table.

A row is a stage 1 (with the warm start before it), an arm a stage 2 that starts from it. To add a table: an entry in
TABLES, its published numbers in `published.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import yaml

from rgsud_lib.config.methods import MethodName
from rgsud_lib.derainer_sizes import SIZES
from rgsud_lib.errors import ConfigError

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Arm:
    """A stage 2: what it changes in the configuration, and the arm whose training time it may take (not its steps)."""

    name: str
    settings: tuple[str, ...] = ()
    as_long_as: str = ""

    @property
    def rewarded(self) -> bool:
        """Whether rewards take part."""
        return not any(setting.startswith("reinforcement.source=") for setting in self.settings)


REWARDS = Arm("rewards")
ALONE = Arm("alone", ("reinforcement.source=none",))
LAST = Arm("self-distillation", ("reinforcement.source=last",))
CONTINUE = Arm("continue", ("reinforcement.source=none",))
EQUAL_TIME = Arm("continue for equal time", ("reinforcement.source=none",), as_long_as="rewards")
CONTROLLED = (REWARDS, LAST, CONTINUE, EQUAL_TIME)


@dataclass(frozen=True)
class Row:
    """A stage 1 and the arms that start from it; `settings` hold for both stages."""

    name: str
    settings: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = CONTROLLED

    def needed(self, names: tuple[str, ...]) -> tuple[Arm, ...]:
        """The arms of these names (none: all), with those whose times one of them is measured by."""
        timed = {arm.settings for arm in self.arms if arm.name in names and arm.as_long_as}
        others = {arm.as_long_as for arm in self.arms if arm.name in names}
        return tuple(arm for arm in self.arms if not names or arm.name in {*names, *others} or arm.settings in timed)

    def pace(self, arm: Arm) -> Arm:
        """The arm with the same settings whose steps are given: its pace is known when this one's steps are wanted."""
        return next(each for each in self.arms if each.settings == arm.settings and not each.as_long_as)


@dataclass(frozen=True)
class Table:
    """`sets`: those of the paper; `across`: whether rewarded arms are compared with the other rows' arms too."""

    name: str
    title: str
    sets: tuple[str, ...]
    rows: tuple[Row, ...]
    across: bool = False


def _scorer(name: str, *settings: str) -> Arm:
    """Rewards chosen by another scorer; the pool of stage 1, which is the same for all, is scored again."""
    return Arm(name, (f"reward.scorer={name}", "reinforcement.rescore=true", *settings))


METHODS = get_args(MethodName)
TABLES = {
    table.name: table
    for table in (
        Table(
            "main",
            "Methods",
            ("Rain100L", "Rain200L", "DDN-Data", "SPA-Data", "RealRain-1k-L", "Night-Rain"),
            (
                Row("dcdgan", ("method.name=dcdgan",), (ALONE,)),
                Row("csud", ("method.name=csud",), (ALONE,)),
                Row("rgsud", ("method.name=rgsud",)),
            ),
            across=True,
        ),
        Table(
            "reward-models",
            "Which score chooses the rewards",
            ("Rain100L",),
            (
                Row(
                    "rgsud",
                    arms=(
                        _scorer("critic"),
                        _scorer("rain_layer"),
                        _scorer("decorrelation"),
                        _scorer("critic+decorrelation"),
                        _scorer("niqe", "evaluation.judge=piqe"),
                        _scorer("piqe"),
                        _scorer("pyiqa:musiq"),
                        _scorer("clip_iqa"),
                        _scorer("daclip"),
                        LAST,
                        CONTINUE,
                    ),
                ),
            ),
        ),
        Table(
            "derainers",
            "Self-reinforcement with other derainers",
            ("Rain200L",),
            tuple(Row(name, (f"derainer.name={name}",)) for name in SIZES),
        ),
        Table(
            "plug-in",
            "Self-reinforcement around other methods",
            ("Rain100L",),
            tuple(Row(name, (f"method.name={name}",)) for name in METHODS),
        ),
        Table(
            "ablation",
            "What self-reinforcement is made of",
            ("Rain100L", "RealRain-1k-L"),
            (
                Row(
                    "rgsud",
                    arms=(
                        *CONTROLLED[:1],
                        Arm("rewards without L_re", ("reinforcement.weight=0",)),
                        Arm("rewards with margin 0.05", ("reward.margin=0.05",)),
                        Arm("rewards of at most 500 steps", ("reward.max_age=500",)),
                        *CONTROLLED[1:],
                    ),
                ),
            ),
        ),
    )
}


def find_table(name: str) -> Table:
    """Raises ConfigError: unknown; all are listed."""
    if name not in TABLES:
        raise ConfigError(f"unknown table {name!r}; choose one of {', '.join(TABLES)}")
    return TABLES[name]


@cache
def published() -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    """The paper's numbers: table -> set -> row -> arm."""
    return yaml.safe_load(PUBLISHED.read_text())
