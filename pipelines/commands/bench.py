"""`rgsud bench`: the paper's tables, made again with the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Tables of the paper, made again at the size that you choose.

\b
  rgsud bench table ablation --data my/sets --preset cpu""",
)


@bench.callback()
def tables() -> None:
    """Keeps `table` a command of its own."""


@bench.command()
def table(
    name: Annotated[str, typer.Argument(help="main, reward-models, derainers, plug-in or ablation")],
    data: Annotated[Path, typer.Option(help="holds a folder for each set, laid out as `rgsud data describe` tells")],
    preset: Annotated[str, typer.Option(help="demo, cpu or paper")] = "cpu",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="for all arms, such as training.steps=300")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="repeatable; default: 0 and 1")] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", help="only this row; repeatable")] = None,
    arms: Annotated[list[str] | None, typer.Option("--arm", help="only this arm of each row; repeatable")] = None,
    sets: Annotated[list[str] | None, typer.Option("--on", help="this set in place of the paper's; repeatable")] = None,
    clean: Annotated[Path | None, typer.Option(help="clean training images in place of the set's own")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="rows trained at once, one thread each")] = 1,
    workdir: Annotated[Path, typer.Option(help="folder of all stages; the same one resumes")] = Path("rgsud-runs"),
) -> None:
    """Train what the table needs and print it beside the published numbers.

    \b
    rgsud bench table ablation --data my/sets --preset cpu
    rgsud bench table plug-in --data my/sets --row csud --row rgsud --seed 0 --seed 1 --seed 2 --jobs 2
    rgsud bench table derainers --data my/sets --on Rain100L

    Each arm with rewards has its controls, from the same stage 1: "self-distillation" (the last output is pooled, good
    or bad), "continue" (no rewards) at equal steps and at equal time.
    """
    from rgsud_lib.tables import Request, make_table

    given = tuple(settings or ()), tuple(seeds or (0, 1)), jobs, tuple(rows or ()), tuple(arms or ()), tuple(sets or ())
    text, page = make_table(Request(name, data, workdir.absolute(), preset, *given, clean))
    typer.echo(f"{text}\n\npage    {page}\nnumbers {page.with_suffix('.json')}")
