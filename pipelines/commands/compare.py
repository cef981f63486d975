"""`rgsud compare`: runs side by side, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUNS = "rgsud-runs"


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...", help="workdir, stage's folder, s3:// address, MLflow run id; or its beginning"
        ),
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="instead: the newest so many of the workdir")] = None,
    prices: Annotated[
        Path | None, typer.Option(envvar="RGSUD_PRICES", help="price table (YAML), for the cost in money")
    ] = None,
    strips: Annotated[int, typer.Option(min=0, help="images shown side by side")] = 6,
    workdir: Annotated[str, typer.Option(help="where beginnings of names are looked for")] = RUNS,
    out: Annotated[Path | None, typer.Option(help="folder of the page; default: compare/KEY in the workdir")] = None,
) -> None:
    """Which run is better, how sure is that, what was set differently, what did it cost?

    The later runs are compared with the first, image by image. All must have been scored on the same images.

    \b
    rgsud compare --last 3
    rgsud compare runs/a runs/b --prices prices.yaml
    rgsud compare evaluate-1a2b 3c4d5e
    rgsud compare runs/a                       one run: its values and its cost
    """
    from rgsud_lib.comparison.resolve import last as newest
    from rgsud_lib.comparison.resolve import resolve
    from rgsud_lib.errors import ComparisonError

    if bool(names) == bool(last):
        raise ComparisonError("name the runs to compare, or give --last N for the newest of the workdir; not both")
    places = newest(last, workdir) if last else [resolve(name, workdir) for name in names or []]
    from rgsud_lib.comparison import report

    made = report.make_report(places, report.Options(prices, strips, out))
    typer.echo(made.text)
    typer.echo(f"\npage    {made.page}")
    if made.run_id:
        typer.echo(f"MLflow  run {made.run_id}, artifact compare.html")
