"""From the runs' evaluations to what is left of a comparison: text, compare.html, compare.json, a run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rgsud_lib.comparison.compare import compare
from rgsud_lib.comparison.page import comparison_page
from rgsud_lib.comparison.record import record
from rgsud_lib.comparison.runs import open_runs
from rgsud_lib.comparison.tables import terminal
from rgsud_lib.cost.prices import read_prices
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.lineage import Place, workdir_of
from rgsud_lib.storage.s3 import is_remote

HERE = "rgsud-compare"  # in the folder where one is, for runs in S3


@dataclass(frozen=True)
class Options:
    """`prices`: a price table; `strips`: images at most; `out`: the folder, by default in the first run's workdir."""

    prices: Path | None = None
    strips: int = 6
    out: Path | None = None


@dataclass(frozen=True)
class Report:
    text: str
    page: Path
    run_id: str


def make_report(places: Sequence[Place], options: Options) -> Report:
    """Compare the evaluations at `places`. Raises what `open_runs`, `read_prices` and `record` raise."""
    comparison = compare(open_runs(list(places)), read_prices(options.prices))
    workdir = workdir_of(places[0])
    kept = Path(HERE) if is_remote(workdir) else Path(workdir) / "compare"
    folder = options.out or kept / comparison.key
    folder.mkdir(parents=True, exist_ok=True)
    page, document = folder / "compare.html", folder / "compare.json"
    write_bytes(page, comparison_page(comparison, options.strips).encode())
    write_json(document, comparison.document())
    return Report(terminal(comparison), page, record(comparison, [page, document], workdir))
