"""Means, spread and comparisons, on outcomes whose answers are known by hand."""

from __future__ import annotations

import pytest

from rgsud_lib.tables.arms import Outcome
from rgsud_lib.tables.definitions import TABLES
from rgsud_lib.tables.report import markdown
from rgsud_lib.tables.results import comparisons, lines


def outcome(row: str, arm: str, seed: int, *psnr: float) -> Outcome:
    images = {f"{number}": dict.fromkeys(("ssim_rgb", "psnr_y", "ssim_y"), 0.5) | {"psnr_rgb": value}
              for number, value in enumerate(psnr)}  # fmt: skip
    return Outcome("Rain100L", row, arm, seed, images, steps=10, seconds=2.0 + seed)


OUTCOMES = [
    outcome("csud", "rewards", 0, 30, 32, 31),
    outcome("csud", "rewards", 1, 32, 34, 33),
    outcome("csud", "continue", 0, 29, 31, 30),
    outcome("csud", "continue", 1, 32.5, 34.5, 33.5),
    outcome("cyclegan", "continue", 0, 20, 20, 20),
]


def test_a_line_has_the_mean_and_spread_over_the_seeds() -> None:
    line = lines("plug-in", OUTCOMES)[0]
    assert line.place == ("Rain100L", "csud", "rewards")
    assert line.means["psnr_rgb"] == pytest.approx(32) and line.seeds == [31, 33]
    assert line.spread == pytest.approx(2**0.5)
    assert (line.steps, line.seconds, line.published) == (10, 2.5, "+0.68")
    assert lines("plug-in", OUTCOMES)[-1].spread is None


def test_rewards_are_compared_within_their_row_only() -> None:
    (compared,) = comparisons(TABLES["plug-in"], OUTCOMES)
    assert (compared.first[2], compared.second[1:]) == ("rewards", ("csud", "continue"))
    assert compared.gain.gain == pytest.approx(0.25) and compared.gain.count == 3
    assert (compared.won, compared.seeds) == (1, 2)


def test_the_main_table_compares_across_rows() -> None:
    outcomes = [
        outcome("rgsud", "rewards", 0, 30, 31),
        outcome("csud", "alone", 0, 29, 30),
        outcome("csud", "alone", 1, 40, 40),
        outcome("rgsud", "doing nothing", 0, 1, 1),
    ]
    (compared,) = comparisons(TABLES["main"], outcomes)
    assert compared.second[1:] == ("csud", "alone")
    assert compared.gain.gain == pytest.approx(1), "only seeds that both have may be compared"
    assert compared.seeds == 1


def test_markdown_has_both_tables() -> None:
    text = markdown(lines("plug-in", OUTCOMES), comparisons(TABLES["plug-in"], OUTCOMES))
    expected = "| Rain100L | csud | rewards | 32.00 ± 1.41 | 31.00 / 33.00 | 0.5000 | 0.50 | 0.5000 | 10 | 2 | +0.68 |"
    assert expected in text
    assert "| Rain100L | csud, rewards | csud, continue | +0.250 | +0.250 to +0.250 | 1 of 2 |" in text
