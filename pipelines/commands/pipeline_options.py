"""The options that several `rgsud pipeline` commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Pipeline = Annotated[str, typer.Argument(metavar="PIPELINE", help="which one: training, retraining or derain")]
Placement = Annotated[str, typer.Option(help="where the tasks run: a profile of pipelines/placement.yaml")]
Version = Annotated[str | None, typer.Option(help="an uploaded version by its name, or latest")]
Rainy = Annotated[str | None, typer.Option(help="s3:// prefix of rainy photographs")]
Clean = Annotated[str | None, typer.Option(help="the same of clean photographs of other scenes")]
Paired = Annotated[str | None, typer.Option(help="with rain/ and clean/ (same names): evaluation only")]
Workdir = Annotated[str | None, typer.Option(help="s3://bucket/prefix: stages work and resume here")]
Derained = Annotated[str | None, typer.Option(help="derain: s3:// prefix of the results")]
Model = Annotated[
    str | None, typer.Option(help="derain: models:/ address (default: rgsud@champion), runs:/ID or s3://")
]
Preset = Annotated[str, typer.Option(help="paper: published sizes (GPU), cpu, demo")]
Override = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a setting; `rgsud config` lists them")
]
RunName = Annotated[str | None, typer.Option("--name", help="default: preset, digest of the settings, date")]
ScheduleName = Annotated[str | None, typer.Option("--name", help="default: the pipeline's, such as rgsud-training")]
Cron = Annotated[str | None, typer.Option(help="'0 3 * * *': each night at three, UTC; seconds may lead")]
Every = Annotated[str | None, typer.Option(help="interval: 6h, 1d, 1h30m")]
Replace = Annotated[bool, typer.Option("--replace", help="a schedule of the same name gives way")]
Wait = Annotated[bool, typer.Option("--wait", help="show progress; exit code 0 only if the run succeeds")]
Experiment = Annotated[str, typer.Option(help="the runs' group on the page; made where missing")]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="take up equal tasks of earlier runs")]
ServiceAccount = Annotated[str | None, typer.Option(help="Kubernetes identity of the pods; default: the placement's")]
Host = Annotated[str | None, typer.Option(envvar="KFP_HOST", help="https://kubeflow.example/pipeline")]
Namespace = Annotated[str | None, typer.Option(envvar="KFP_NAMESPACE", help="your profile, where users share a server")]
TokenFile = Annotated[Path | None, typer.Option(envvar="KFP_TOKEN_FILE", help="file that holds a bearer token")]
CookieFile = Annotated[Path | None, typer.Option(help="file that holds a session cookie; or KFP_COOKIE")]
CaFile = Annotated[Path | None, typer.Option(envvar="KFP_CA_FILE", help="PEM of a private certificate authority")]
