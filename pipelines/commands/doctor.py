"""`rgsud doctor`: is this machine, container or pod fit for work?"""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    workdir: Annotated[str, typer.Option(help="where stages work: a folder or s3://bucket/prefix")] = "rgsud-runs",
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Check GPU, shared memory, disks, S3, MLflow, image and packages; exit code 1 where one of them fails.

    rgsud doctor --workdir s3://bucket/rgsud
    """
    import json
    from dataclasses import asdict

    from rgsud_lib.doctor import examine

    findings = examine(workdir)
    if as_json:
        typer.echo(json.dumps([asdict(found) for found in findings], indent=1))
    else:
        for found in findings:
            typer.echo(f"{found.status:4}  {found.check}: {found.message}")
    if any(found.status == "fail" for found in findings):
        raise typer.Exit(1)
