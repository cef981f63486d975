"""A lineage as SVG: boxes in rows, each below all that it was made from; colours are the page's, or its own without."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from rgsud_lib.evaluation.page import render_page
from rgsud_lib.lineage import Name
from rgsud_lib.lineage.graph import Lineage, Node

WIDTH, GAP, BETWEEN = 360, 28, 44  # pixels: a box, the space beside it, the space between rows
LINE, PAD = 17, 12
LETTERS = 50  # that fit into a line of a box
STYLE = """
.box rect { fill: var(--card, #fff); stroke: var(--line, #c5cdd6); }
.box.root rect { stroke: var(--blue, #2f6fb3); stroke-width: 2; }
.box.gone rect, .box.unknown rect { stroke: var(--bad, #b3402f); stroke-dasharray: 5 4; }
.box text { fill: var(--soft, #5d6b7a); font: 12px system-ui, sans-serif; }
.box text.title { fill: var(--ink, #16202c); font-size: 14px; font-weight: 600; }
.step { fill: none; stroke: var(--soft, #5d6b7a); stroke-width: 1.5; }
.tip { fill: var(--soft, #5d6b7a); }
"""


@dataclass(frozen=True)
class Box:
    """Where a node is drawn, in pixels."""

    left: int
    top: int
    height: int

    @property
    def middle(self) -> int:
        return self.left + WIDTH // 2


def draw(lineage: Lineage) -> Markup:
    """A whole <svg> element. Only direct steps are drawn, see `Lineage.steps`."""
    boxes = _boxes(lineage)
    width = max(box.left for box in boxes.values()) + WIDTH + 2
    height = max(box.top + box.height for box in boxes.values()) + 2
    parts = [_step(boxes[start], box) for name, box in boxes.items() for start in lineage.steps(name)]
    parts += [_box(lineage.nodes[name], box, name in lineage.roots) for name, box in boxes.items()]
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    tip += '<path class="tip" d="M0 0 8 4 0 8z"/></marker>'
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="lineage of {escape(lineage.asked)}">'
        f"<style>{STYLE}</style><defs>{tip}</defs>{''.join(parts)}</svg>"
    )


def page(lineage: Lineage) -> str:
    """One HTML file: the drawing, and a table of all that is in it."""
    return render_page("rgsud_lib.lineage", "lineage.html", lineage=lineage, drawing=draw(lineage))


def _boxes(lineage: Lineage) -> dict[Name, Box]:
    rows = _rows(lineage)
    columns = _columns(lineage, rows)
    heights = {name: 2 * PAD + LINE * len(node.lines) for name, node in lineage.nodes.items()}
    tops, top = {}, 1
    for row in sorted(set(rows.values())):
        tops[row] = top
        top += max(heights[name] for name in rows if rows[name] == row) + BETWEEN
    return {name: Box(1 + columns[name] * (WIDTH + GAP), tops[row], heights[name]) for name, row in rows.items()}


def _rows(lineage: Lineage) -> dict[Name, int]:
    """The row of each node: one below the lowest of its inputs."""
    rows: dict[Name, int] = {}

    def row(name: Name) -> int:
        if name not in rows:
            rows[name] = 1 + max((row(start) for start in lineage.steps(name)), default=-1)
        return rows[name]

    return {name: row(name) for name in lineage.nodes}


def _columns(lineage: Lineage, rows: dict[Name, int]) -> dict[Name, int]:
    """A node stands below its first input where that is free; a line on its way down keeps its column free."""
    taken: dict[int, set[int]] = {}
    columns: dict[Name, int] = {}
    last_use = {name: max((rows[use] for use in lineage.uses(name)), default=rows[name]) for name in rows}
    for name in sorted(rows, key=rows.__getitem__):
        wanted = next((columns[start] for start in lineage.steps(name)), 0)
        used = taken.setdefault(rows[name], set())
        column = next(column for column in (wanted, *range(len(rows))) if column not in used)
        columns[name] = column
        for row in range(rows[name], max(last_use[name], rows[name] + 1)):
            taken.setdefault(row, set()).add(column)
    return columns


def _step(start: Box, end: Box) -> str:
    """Down in the column of its start, then over to its end."""
    bend = end.top - BETWEEN + 6
    return (
        f'<path class="step" marker-end="url(#tip)" d="M{start.middle} {start.top + start.height}V{bend}'
        f'C{start.middle} {end.top - 8} {end.middle} {bend} {end.middle} {end.top - 1}"/>'
    )


def _box(node: Node, box: Box, root: bool) -> str:
    title, *lines = node.lines
    texts = [f'<text class="title" x="{box.left + PAD}" y="{box.top + PAD + 13}">{escape(title)}</text>']
    for number, line in enumerate(lines, 1):
        y = box.top + PAD + 13 + LINE * number
        texts.append(f'<text x="{box.left + PAD}" y="{y}">{escape(_short(line))}<title>{escape(line)}</title></text>')
    kind = f"box {node.state}{' root' if root else ''}"
    frame = f'<rect x="{box.left}" y="{box.top}" width="{WIDTH}" height="{box.height}" rx="8"/>'
    return f'<g class="{kind}">{frame}{"".join(texts)}</g>'


def _short(line: str) -> str:
    """The end of a long line, which tells addresses apart."""
    if len(line) <= LETTERS:
        return line
    return f"…{line[1 - LETTERS :]}" if "/" in line else f"{line[: LETTERS - 1]}…"
