"""`rgsud data`: the published rain sets, and whether a copy of one is what papers mean by its name."""

from __future__ import annotations

from typing import Annotated

import typer

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""What is known about published rain sets, and checks of your copies. Nothing is downloaded.

\b
  rgsud data list
  rgsud data describe Rain100L
  rgsud data check Rain100L my/Rain100L --train my/clean""",
)
Name = Annotated[str, typer.Argument(help="of the set, as in `rgsud data list`")]


@data.command("list")
def show() -> None:
    """All published sets with their splits.

    rgsud data list
    """
    from rgsud_lib.data.published import COLUMNS, published_sets

    rows = [COLUMNS[:4], *(entry.row()[:4] for entry in published_sets())]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo("\nlayout, naming, pitfalls, where it is published: rgsud data describe NAME")


@data.command()
def describe(name: Name) -> None:
    """Layout, sizes, naming and pitfalls of a set, and where it is published.

    rgsud data describe DDN-Data
    """
    from rgsud_lib.data.published import published_set

    typer.echo(published_set(name).describe())


@data.command()
def check(
    name: Name,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="your copy: a folder or s3:// prefix")],
    train: Annotated[
        list[str] | None, typer.Option(help="images that you train on: no scene of the set may be in them; repeatable")
    ] = None,
) -> None:
    """Check a copy: counts, pairs, sizes, damaged files, leaks. Exit code 1 where one of them fails.

    \b
    rgsud data check Rain100L my/Rain100L
    rgsud data check Rain100H my/Rain100H --train my/clean
    """
    from rgsud_lib.data.published import published_set

    published = published_set(name)
    from rgsud_lib.data.published_check import check_copy

    findings = check_copy(published, folder, train or [])
    for found in findings:
        typer.echo(f"{found.status:4}  {found.check}: {found.message}")
    failed = sum(found.status == "fail" for found in findings)
    if failed:
        typer.echo(f"{failed} of {len(findings)} checks failed; known pitfalls: rgsud data describe {published.name}")
        raise typer.Exit(1)
