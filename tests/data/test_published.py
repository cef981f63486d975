"""The table of published sets is whole, found by any usual spelling, and the same in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgsud_lib.data.published import markdown_table, published_set, published_sets
from rgsud_lib.errors import DataError

ASKED_FOR = [
    *("Rain100L", "Rain100H", "Rain200L", "Rain200H", "Rain12", "Rain800", "DID-Data", "DDN-Data", "SPA-Data"),
    *("RealRain-1k-L", "RealRain-1k-H", "Night-Rain", "SIRR", "Real3000", "RainDS", "GT-Rain"),
]


def test_every_set_has_its_facts_and_no_name_is_taken_twice() -> None:
    assert [entry.name for entry in published_sets()] == ASKED_FOR
    names = [name.lower() for entry in published_sets() for name in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)
    for entry in published_sets():
        assert entry.pitfalls and entry.home.startswith("https://"), entry.name
        assert len({split.paired for split in entry.splits}) == 1, entry.name


@pytest.mark.parametrize("spelling", ["DDN-Data", "ddn_data", "ddn data", "Rain1400"])
def test_spellings(spelling: str) -> None:
    assert published_set(spelling).name == "DDN-Data"


def test_unknown_name_lists_all_and_the_nearest() -> None:
    with pytest.raises(DataError, match="unknown data set 'rain100'; did you mean Rain100L or Rain100H") as refused:
        published_set("rain100")
    assert all(name in str(refused.value) for name in ASKED_FOR)
    with pytest.raises(DataError, match="unknown data set 'xyzzy'; known are Rain100L"):
        published_set("xyzzy")


def test_description_says_layout_counts_and_what_is_only_reported() -> None:
    text = published_set("RealRain-1k-L").describe()
    assert "RealRain-1k-L/test/rain/NAME.png   about 224 pairs, rainy" in text
    assert "Real3000/*.png    3000 images, rainy" in published_set("Real3000").describe()
    assert "? pairs" in published_set("Night-Rain").layout()


def test_the_documentation_has_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    command = "python -c 'from rgsud_lib.data.published import markdown_table; print(markdown_table())'"
    assert markdown_table() in page, f"docs/data.md is not up to date; put into it what this prints: {command}"
