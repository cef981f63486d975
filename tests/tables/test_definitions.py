"""Every arm of every table is a configuration that can be trained, and every published number has its place."""

from __future__ import annotations

import pytest

from rgsud_lib.config import load_config
from rgsud_lib.data.published import published_set
from rgsud_lib.errors import ConfigError
from rgsud_lib.tables.definitions import TABLES, find_table, published


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_arm_is_a_valid_configuration(table) -> None:
    digests = set()
    for row in table.rows:
        for arm in row.arms:
            config = load_config("cpu", [*row.settings, *arm.settings])
            assert arm.rewarded == (config.reinforcement.source == "reward")
            if not arm.as_long_as:
                digests.add(config.digest())
    assert len(digests) == sum(not arm.as_long_as for row in table.rows for arm in row.arms), "two arms are the same"


@pytest.mark.parametrize("name", [name for name in TABLES if name != "reward-models"])
def test_every_rewarded_row_has_its_controls(name: str) -> None:
    for row in TABLES[name].rows:
        if any(arm.rewarded for arm in row.arms):
            assert {"self-distillation", "continue", "continue for equal time"} <= {arm.name for arm in row.arms}


def test_published_numbers_belong_to_arms() -> None:
    for name, sets in published().items():
        arms = {(row.name, arm.name) for row in TABLES[name].rows for arm in row.arms}
        for set_, rows in sets.items():
            assert published_set(set_).name == set_ and set_ in TABLES[name].sets
            assert {(row, arm) for row, found in rows.items() for arm in found} <= arms


def test_the_main_figure_is_the_papers() -> None:
    assert published()["main"]["Rain100L"]["rgsud"]["rewards"] == "34.41 / .967"


def test_an_unknown_table_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown table 'reward'; choose one of main, reward-models"):
        find_table("reward")


def test_an_arm_brings_those_along_that_time_it() -> None:
    row = TABLES["plug-in"].rows[0]
    needed = [arm.name for arm in row.needed(("continue for equal time",))]
    assert needed == ["rewards", "continue", "continue for equal time"]
    assert [arm.name for arm in row.needed(("self-distillation",))] == ["self-distillation"]
