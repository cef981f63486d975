from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from rgsud_lib.evaluation.charts import bar_chart, line_chart


def parse(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


def test_line_chart_draws_each_series_inside_its_frame() -> None:
    points = [(step, math.sin(step / 30)) for step in range(0, 300, 10)]
    root = parse(line_chart("a < b", [("one", points), ("two", [(0, -3.0), (290, math.nan)])], [(100, "phase & more")]))
    lines = root.findall(".//polyline")
    assert len(lines) == 2
    coordinates = [tuple(map(float, pair.split(","))) for pair in lines[0].get("points").split()]
    assert len(coordinates) == 30
    assert all(0 <= x <= 560 and 0 <= y <= 220 for x, y in coordinates)
    assert "phase & more" in "".join(root.itertext())


def test_charts_of_nothing_are_empty_and_of_one_value_finite() -> None:
    assert line_chart("empty", [("one", []), ("two", [(1, math.inf)])]) == ""
    assert bar_chart("empty", [], "dB") == ""
    for text in (line_chart("one", [("x", [(5, 2.0)])]), bar_chart("zero", [("a", 0.0)], "dB")):
        assert not re.search(r"nan|inf", text)


def test_bars_below_zero_are_marked() -> None:
    root = parse(bar_chart("gain", [("a.png", 2.0), ("<b>", -1.0)], "dB"))
    bars = root.findall(".//rect")
    assert [bar.get("class") for bar in bars] == ["bar", "bar bad"]
    assert bars[1].find("title").text == "<b>: -1.00 dB"
