"""Small charts as inline SVG: no library, no script; colours come from the page, so light and dark both work."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 30
Series = tuple[str, Sequence[tuple[float, float]]]


def line_chart(title: str, series: Sequence[Series], marks: Sequence[tuple[float, str]] = ()) -> Markup:
    """Lines over training steps. `series`: (name, [(step, value)]); `marks`: vertical lines (step, caption).

    Values that are not finite are left out; no values at all give an empty string.
    """
    drawn = [(name, [(x, y) for x, y in points if math.isfinite(y)]) for name, points in series]
    drawn = [(name, points) for name, points in drawn if points]
    if not drawn:
        return Markup("")
    xs, ys = ([point[axis] for _, points in drawn for point in points] for axis in (0, 1))
    frame = Frame(min(xs), max(xs), min(ys), max(ys))
    parts = [frame.grid()]
    for step, caption in marks:
        x = frame.x(step)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="caption" x="{x + 4:.1f}" y="{TOP + 9}">{escape(caption)}</text>')
    for index, (_, points) in enumerate(drawn):
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line s{index % 4}" points="{path}"/>')
        if len(points) < 40:
            parts += [
                f'<circle class="dot s{index % 4}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5"/>'
                for x, y in points
            ]
    return svg_figure(title, parts, [name for name, _ in drawn])


def bar_chart(title: str, values: Sequence[tuple[str, float]], unit: str) -> Markup:
    """Bars from zero, one for each (name, value), in the order given; a bar's name shows when pointed at."""
    if not values:
        return Markup("")
    heights = [value for _, value in values]
    frame = Frame(0, len(values), min(0.0, *heights), max(0.0, *heights))
    zero, width = frame.y(0), (WIDTH - LEFT - RIGHT) / len(values)
    parts = [frame.grid(steps=False)]
    for index, (name, value) in enumerate(values):
        top, bottom = min(frame.y(value), zero), max(frame.y(value), zero)
        parts.append(
            f'<rect class="{"bar" if value >= 0 else "bar bad"}" x="{frame.x(index) + 0.1 * width:.1f}" y="{top:.1f}" '
            f'width="{0.8 * width:.1f}" height="{max(bottom - top, 0.5):.1f}">'
            f"<title>{escape(name)}: {value:+.2f} {escape(unit)}</title></rect>"
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    return svg_figure(title, parts)


def histogram(title: str, groups: Sequence[tuple[str, Sequence[float]]], bins: int = 16) -> Markup:
    """Shares in percent of each group's values, (name, values), side by side; no values at all give an empty string."""
    values = [value for _, group in groups for value in group]
    if not values:
        return Markup("")
    edges = np.histogram_bin_edges(values, bins)
    shares = [100 * np.histogram(group, edges)[0] / max(1, len(group)) for _, group in groups]
    frame = Frame(float(edges[0]), float(edges[-1]), 0.0, float(np.max(shares)))
    parts, floor = [frame.grid()], frame.y(0)
    for series, heights in enumerate(shares):
        for low, high, share in zip(edges, edges[1:], heights, strict=False):
            width = 0.9 * (frame.x(high) - frame.x(low)) / len(groups)
            parts.append(
                f'<rect class="bar s{series % 4}" x="{frame.x(low) + series * width:.1f}" y="{frame.y(share):.1f}" '
                f'width="{width:.1f}" height="{floor - frame.y(share):.1f}">'
                f"<title>{low:.4g} to {high:.4g}: {share:.1f} %</title></rect>"
            )
    return svg_figure(title, parts, [name for name, _ in groups])


class Frame:
    """Maps data to the drawing area and draws its grid."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x_low, self.x_span = x_low, (x_high - x_low) or 1.0
        self.ticks = _ticks(y_low, y_high)
        self.y_low, self.y_high = min(y_low, self.ticks[0]), max(y_high, self.ticks[-1])
        self.x_high = x_low + self.x_span

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / self.x_span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)

    def grid(self, steps: bool = True) -> str:
        parts = []
        for tick in self.ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
        for tick in _ticks(self.x_low, self.x_high) if steps else []:
            if self.x_low <= tick <= self.x_high:
                parts.append(
                    f'<text class="tick" x="{self.x(tick):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick:g}</text>'
                )
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """About four round values that enclose [low, high]."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / 4))
    step = min((factor * magnitude for factor in (1, 2, 2.5, 5, 10)), key=lambda size: abs(span / size - 4))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def svg_figure(title: str, parts: Sequence[str], legend: Sequence[str] = ()) -> Markup:
    """A <figure> of SVG `parts`, which must be escaped; title and `legend` (names of series 0, 1, ...) need not be."""
    keys = "".join(f'<span class="key s{index % 4}">{escape(name)}</span>' for index, name in enumerate(legend))
    return Markup(
        f'<figure class="chart"><figcaption>{escape(title)}{keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )
