"""The tables of a comparison as text: one set of rows for the terminal, the page and MLflow's description."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rgsud_lib.comparison.compare import CONFIDENCE, GROUP_TITLES, Comparison, Row
from rgsud_lib.comparison.runs import Run
from rgsud_lib.cost.model import all_spent
from rgsud_lib.cost.spent import duration, total
from rgsud_lib.evaluation.verdict import LEAST_FOR_INTERVAL, decimals, label
from rgsud_lib.stages import STAGES


@dataclass(frozen=True)
class Table:
    """`best`: (row, column) of cells to be marked, the first column being the row's name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()


def headline(comparison: Comparison) -> str:
    """Which run is better, in a sentence."""
    first, row = comparison.runs[0], comparison.main
    if row is None:
        return "Nothing that was nobody's reward was measured of all runs"
    what = f"{label(row.metric)} on {row.count} {GROUP_TITLES[row.group]}"
    if len(comparison.runs) == 1:
        return f"{first.letter}: {what} {row.means[0]:.{decimals(row.metric)}f}"
    told = [
        (run.letter, row.verdict(index)) for index, run in enumerate(comparison.runs) if index
    ]  # fmt: skip
    parts = [
        f"{', '.join(letters)} {'is' if len(letters) == 1 else 'are'} {verdict} than {first.letter}"
        if verdict != "not told apart"
        else f"{', '.join(letters)} cannot be told from {first.letter}"
        for verdict in ("better", "worse", "not told apart")
        if (letters := [letter for letter, said in told if said == verdict])
    ]
    return f"{'; '.join(parts)}: {what}"


def metrics_table(comparison: Comparison) -> Table:
    """Means; of the later runs also the gain over the first and its interval."""
    runs, rows, best = comparison.runs, [], set()
    for number, row in enumerate(comparison.rows):
        digits = decimals(row.metric)
        name = f"{GROUP_TITLES[row.group]}: {label(row.metric)} {'↑' if row.higher else '↓'}"
        name += f" (reward of {', '.join(row.rewards)})" if row.rewards else ""
        cells = [name, str(row.count), "–" if row.before is None else f"{row.before:.{digits}f}"]
        cells += [_cell(row, index, digits) for index in range(len(runs))]
        rows.append(cells)
        shown = [round(mean, digits) for mean in row.means]
        if len(set(shown)) > 1 and not row.rewards:
            most = max(shown) if row.higher else min(shown)
            best.update((number, 3 + index) for index, mean in enumerate(shown) if mean == most)
    first = runs[0].letter
    title = f"Values, and gain over {first} with its {CONFIDENCE:.0%} interval" if len(runs) > 1 else "Values"
    columns = ["metric", "images", "rainy input", *(run.letter for run in runs)]
    return Table(title, columns, rows, frozenset(best))


def settings_table(comparison: Comparison) -> Table:
    rows = [
        [path, *("–" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values)]
        for path, values in sorted(comparison.settings.items())
    ]
    return Table("Settings that differ", ["setting", *(run.letter for run in comparison.runs)], rows)


def cost_table(comparison: Comparison) -> Table:
    """Seconds by stage, then the sums; stages of earlier models that a run started from are a row of their own."""
    runs, prices = comparison.runs, comparison.prices
    rows = [[stage, *(_stage(run, stage) for run in runs)] for stage in STAGES]
    rows.append(["earlier models", *(_earlier(run) for run in runs)])
    sums = comparison.totals
    rows.append(["all", *(duration(one.seconds) for one in sums)])
    rows.append(["lost to stops", *(duration(one.lost) for one in sums)])
    if any(one.gpu_seconds for one in sums):
        rows.append(["GPU-seconds", *(f"{one.gpu_seconds:,.0f}" for one in sums)])
        rows.append(["of it lost", *(f"{one.lost_gpu_seconds:,.0f}" for one in sums)])
    rows.append(["attempts at stages", *(str(one.attempts) for one in sums)])
    if prices:
        rows.append([f"money, {prices.currency}", *(f"{one.money:,.2f}" for one in sums)])
        rows.append([f"of it lost, {prices.currency}", *(f"{one.lost_money:,.2f}" for one in sums)])
    for unit, many in (("image", "images"), ("megapixel", "megapixels")):
        for stage in ("recycle", "reinforce", "evaluate"):
            cells = [_per(run, stage, many) for run in runs]
            rows.append([f"{stage}: seconds per {unit}", *cells])
    shown = [row for row in rows if any(cell != "–" for cell in row[1:])]
    return Table("Cost", ["", *(run.letter for run in runs)], shown)


def terminal(comparison: Comparison) -> str:
    """All of it as plain text, the best value of each row marked `*`."""
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console(file=io.StringIO(), width=max(100, 44 + 30 * len(comparison.runs)), highlight=False,
                      color_system=None)  # fmt: skip
    console.print(headline(comparison), markup=False)
    for run in comparison.runs:
        console.print(f"  {run.letter}  {run.bundle.path}", markup=False, soft_wrap=True)
    for table in (settings_table(comparison), metrics_table(comparison), cost_table(comparison)):
        if not table.rows and len(comparison.runs) > 1:
            console.print(f"\n{table.title}: none")
        if not table.rows:
            continue
        drawn = Drawn(title=table.title, title_justify="left", title_style="bold")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if number else "left")
        for number, row in enumerate(table.rows):
            cells = [f"{cell}{'*' if (number, at) in table.best else ''}" for at, cell in enumerate(row)]
            drawn.add_row(*(cell.replace("[", r"\[") for cell in cells))
        console.print(drawn)
    for note in comparison.notes:
        console.print(f"! {note}", markup=False)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def markdown(table: Table) -> str:
    """For MLflow's description of a run."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def _cell(row: Row, index: int, digits: int) -> str:
    mean = f"{row.means[index]:.{digits}f}"
    if not index:
        return mean
    gain = row.gains[index - 1]
    if gain.count < LEAST_FOR_INTERVAL:
        return f"{mean} ({gain.gain:+.{digits}f})"
    return f"{mean} ({gain.gain:+.{digits}f}, {gain.low:+.{digits}f} to {gain.high:+.{digits}f})"


def _stage(run: Run, stage: str) -> str:
    own = [cost for cost in run.costs if cost.stage == stage and not cost.earlier and cost.spent]
    return duration(total(all_spent(own)).seconds) if own else "–"


def _earlier(run: Run) -> str:
    earlier = [cost for cost in run.costs if cost.earlier and cost.spent]
    return duration(total(all_spent(earlier)).seconds) if earlier else "–"


def _per(run: Run, stage: str, many: str) -> str:
    for cost in run.costs:
        count: Any = getattr(cost, many)
        if cost.stage == stage and not cost.earlier and cost.spent and count:
            return f"{total(cost.spent).seconds / count:.3g}"
    return "–"
