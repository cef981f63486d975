"""`rgsud tracking`: what MLflow has not got yet."""

from __future__ import annotations

from typing import Annotated

import typer

tracking = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Send MLflow what it could not take while a stage ran.

\b
The stages and the pipeline's last task do so by themselves as soon as the server is back; this is for a server that
was away until the end. Nothing is sent twice.""",
)
Workdir = Annotated[str, typer.Option(help="of the runs; a folder or an s3:// prefix")]
RUNS = "rgsud-runs"


@tracking.command()
def replay(workdir: Workdir = RUNS) -> None:
    """Send all that is kept in a workdir to MLFLOW_TRACKING_URI, or to the workdir's own database.

    \b
    rgsud tracking replay
    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 rgsud tracking replay --workdir s3://bucket/runs
    """
    import os

    from rgsud_lib.tracking.replay import replay_all

    result = replay_all(workdir, anywhere=bool(os.environ.get("MLFLOW_TRACKING_URI")))
    for name in result.sent:
        typer.echo(f"sent  {name}")
    for name, reason in result.left.items():
        typer.echo(f"kept  {name}: {reason}")
    if not result.sent and not result.left:
        typer.echo(f"nothing is waiting in {workdir}")
    if result.left:
        raise typer.Exit(1)
