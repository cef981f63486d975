"""`rgsud serve`: the model as a web service, and a page to try it on."""

from __future__ import annotations

from typing import Annotated

import typer

RUNS = "rgsud-runs"


def serve(
    model: Annotated[
        str | None, typer.Option(envvar="RGSUD_SERVE_MODEL", help="as for derain; default: the workdir's")
    ] = None,
    ui: Annotated[bool, typer.Option("--ui", help="a page too: drop a photograph, compare, download")] = False,
    host: Annotated[str, typer.Option(envvar="RGSUD_SERVE_HOST", help="0.0.0.0: every machine may ask")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="RGSUD_SERVE_PORT")] = 8080,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="a limit; docs/serving.md lists them")
    ] = None,
    workdir: Annotated[
        str, typer.Option(help="whose held-out images the page shows; for models:/ without MLFLOW_TRACKING_URI")
    ] = RUNS,
) -> None:
    """Serve the model: POST /derain for image files, the Open Inference Protocol v2, /metrics.

    \b
    rgsud serve --ui
    rgsud serve --model models:/rgsud@champion --host 0.0.0.0 --set max_pixels=12000000
    curl --data-binary @rainy.jpg http://127.0.0.1:8080/derain > derained.jpg
    """
    from rgsud_lib.config import serving_config

    given = serving_config(settings)
    from rgsud_lib.inference.address import local_model
    from rgsud_lib.serving.server import serve

    if not serve(local_model(model, workdir), given, host, port, workdir if ui else None):
        raise typer.Exit(1)
