"""`rgsud lineage`: where a model comes from, and what became of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_RUN",
            help="model file, stage's folder or s3:// address, workdir, MLflow run id, models:/rgsud@champion, "
            "models:/rgsud/3; or a dataset: digest, or folder or prefix of its photographs",
        ),
    ],
    workdir: Annotated[
        list[str] | None,
        typer.Option(help="where bundles lie, besides what MODEL_OR_RUN says; repeatable; default: rgsud-runs"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="draw it: a page (.html) or a picture (.svg)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
) -> None:
    """What a model was made from, up to the raw images, and what was made from a dataset, down to the versions.

    \b
    rgsud lineage models:/rgsud@champion
    rgsud lineage rgsud-runs --out lineage.html
    rgsud lineage s3://photos/rain --workdir s3://runs/rgsud
    """
    import json

    from rgsud_lib.errors import ConfigError
    from rgsud_lib.files import write_bytes
    from rgsud_lib.lineage.drawing import draw, page
    from rgsud_lib.lineage.graph import trace
    from rgsud_lib.lineage.tree import tree

    if out and out.suffix not in (".html", ".svg"):
        raise ConfigError(f"--out {out}: expected a name that ends with .html or .svg")
    found = trace(what, workdir or [])
    if out:
        write_bytes(out, (page(found) if out.suffix == ".html" else str(draw(found))).encode())
    typer.echo(json.dumps(found.document(), indent=1) if as_json else tree(found))
    if out and not as_json:
        typer.echo(f"\ndrawn   {out}")
