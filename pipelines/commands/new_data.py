"""`rgsud new-data`: is there enough new rain to train again?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new_data(
    rainy: Annotated[str, typer.Option(help="folder or s3:// prefix of rainy photographs")],
    preset: Annotated[str, typer.Option(help="demo, cpu or paper")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a setting, such as new_data.*")
    ] = None,
    workdir: Annotated[str, typer.Option(help="where the last model lies")] = "rgsud-runs",
    report: Annotated[Path | None, typer.Option(help="default: new-data.html in a local workdir, or here")] = None,
) -> None:
    """Compare a rainy folder with what the last model was trained on: train or skip, and why.

    \b
    rgsud new-data --rainy my/rain
    rgsud new-data --rainy s3://photos/rain --workdir s3://runs/rgsud --set new_data.min_new_images=20
    """
    from rgsud_lib.config import load_config
    from rgsud_lib.retraining.new_data import check_new_data

    page = report or Path("" if "://" in workdir else workdir) / "new-data.html"
    decision = check_new_data(load_config(preset, settings), rainy, workdir, page.resolve())
    typer.echo(decision.answer)
    for reason in decision.reasons:
        typer.echo(f"  {reason}")
    typer.echo(f"report  {page}")
