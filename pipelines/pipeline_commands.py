"""`rgsud pipeline ...`: compile, upload, submit, watch and schedule on Kubeflow. Imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rgsud_pipelines import pipeline_options as option

if TYPE_CHECKING:
    from rgsud_lib.config import Config
    from rgsud_pipelines.package import Package

pipeline = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""The same pipeline on Kubeflow: compile, submit, watch, schedule.

\b
Once in a shell (the image's digest: `docker buildx imagetools inspect registry.example/rgsud:1.0`):
  export RGSUD_IMAGE=registry.example/rgsud@sha256:...
  export KFP_HOST=https://kubeflow.example/pipeline KFP_NAMESPACE=my-profile KFP_TOKEN_FILE=~/kfp-token
Then:
  rgsud pipeline submit --rainy s3://photos/rain --clean s3://photos/clean --workdir s3://photos/rgsud --wait
  rgsud pipeline runs
  rgsud pipeline schedule --rainy s3://photos/rain --clean s3://photos/clean --workdir s3://photos/rgsud --every 1d
  rgsud pipeline unschedule rgsud-training

\b
Login: --token-file (a service account's token, read again for each request), or --cookie-file or KFP_COOKIE (the
session cookie of your browser, authservice_session=...); in a pod of the cluster Kubeflow's own token is found.
No cluster address? `kubectl port-forward -n kubeflow svc/ml-pipeline 8888`, then --host http://localhost:8888.""",
)


@pipeline.command("compile")
def compile_yaml(
    out: Annotated[Path | None, typer.Option(help="folder; default: pipelines/compiled of the source tree")] = None,
) -> None:
    """Write the YAML of every pipeline and placement.

    \b
    rgsud pipeline compile
    RGSUD_IMAGE=registry.example/rgsud@sha256:... rgsud pipeline compile --out build
    """
    from rgsud_pipelines.compile import COMPILED, compile_all

    for path in compile_all(out or COMPILED):
        typer.echo(path)


@pipeline.command()
def upload(
    which: option.Pipeline = "training",
    placement: option.Placement = "gpu",
    host: option.Host = None,
    namespace: option.Namespace = None,
    token_file: option.TokenFile = None,
    cookie_file: option.CookieFile = None,
    ca_file: option.CaFile = None,
) -> None:
    """Upload the compiled pipeline as a version, named by code version and digest; twice makes one version.

    rgsud pipeline upload training --placement gpu
    """
    from rgsud_pipelines.kfp_session import session
    from rgsud_pipelines.package import compile_package
    from rgsud_pipelines.submit import upload as upload_package

    package = compile_package(which, placement)
    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        typer.echo(f"{package.name} {upload_package(client, package).display_name}")


@pipeline.command()
def submit(
    which: option.Pipeline = "training",
    rainy: option.Rainy = None,
    clean: option.Clean = None,
    paired: option.Paired = None,
    workdir: option.Workdir = None,
    preset: option.Preset = "paper",
    settings: option.Override = None,
    placement: option.Placement = "gpu",
    version: option.Version = None,
    experiment: option.Experiment = "rgsud",
    name: Annotated[str | None, typer.Option(help="of the run; default: preset, digest of the settings, date")] = None,
    cache: option.Cache = True,
    service_account: option.ServiceAccount = None,
    wait: Annotated[bool, typer.Option("--wait", help="show progress; exit code 0 only if the run succeeds")] = False,
    host: option.Host = None,
    namespace: option.Namespace = None,
    token_file: option.TokenFile = None,
    cookie_file: option.CookieFile = None,
    ca_file: option.CaFile = None,
) -> None:
    """Start a run. Without --version the pipeline is compiled here and sent along.

    \b
    rgsud pipeline submit --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud --wait
    rgsud pipeline submit --preset cpu --placement cpu --set training.seed=7 --no-cache \\
        --rainy s3://b/rain --clean s3://b/clean --paired s3://b/pairs --workdir s3://b/rgsud
    rgsud pipeline submit --version latest --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud
    """
    config, package, locations = _prepared(
        which, placement, cache, version, preset, settings, rainy=rainy, clean=clean, paired=paired, workdir=workdir
    )
    from rgsud_pipelines.kfp_session import session
    from rgsud_pipelines.package import run_name, run_parameters
    from rgsud_pipelines.submit import job, reference, uploaded
    from rgsud_pipelines.submit import submit as start
    from rgsud_pipelines.watch import wait as wait_for

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        spec, source = package.spec, {"pipeline_spec": package.spec}
        if version:
            found = uploaded(client, package.name, version)
            spec, source = found.pipeline_spec, reference(found)
        parameters = run_parameters(spec, config, **locations)
        run = start(client, job(client, source, parameters, experiment, name or run_name(config), service_account))
        typer.echo(client.run_link(run.run_id))
        if wait:
            wait_for(client, run.run_id)


@pipeline.command()
def runs(
    limit: Annotated[int, typer.Option(min=1, max=200, help="how many")] = 10,
    experiment: Annotated[str | None, typer.Option(help="only this one's")] = None,
    host: option.Host = None,
    namespace: option.Namespace = None,
    token_file: option.TokenFile = None,
    cookie_file: option.CookieFile = None,
    ca_file: option.CaFile = None,
) -> None:
    """List the newest runs with state and duration, then all schedules.

    rgsud pipeline runs --limit 20 --experiment rgsud
    """
    from rgsud_pipelines.kfp_session import session
    from rgsud_pipelines.watch import runs_table, schedules_table

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        typer.echo(f"{runs_table(client, limit, experiment)}\n\n{schedules_table(client)}")


@pipeline.command()
def schedule(
    which: option.Pipeline = "training",
    cron: Annotated[str | None, typer.Option(help="'0 3 * * *': each night at three, UTC; seconds may lead")] = None,
    every: Annotated[str | None, typer.Option(help="interval: 6h, 1d, 1h30m")] = None,
    rainy: option.Rainy = None,
    clean: option.Clean = None,
    paired: option.Paired = None,
    workdir: option.Workdir = None,
    preset: option.Preset = "paper",
    settings: option.Override = None,
    placement: option.Placement = "gpu",
    version: option.Version = None,
    experiment: option.Experiment = "rgsud",
    name: Annotated[str | None, typer.Option(help="of the schedule; default: the pipeline's, rgsud-training")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="a schedule of the same name gives way")] = False,
    cache: option.Cache = True,
    service_account: option.ServiceAccount = None,
    host: option.Host = None,
    namespace: option.Namespace = None,
    token_file: option.TokenFile = None,
    cookie_file: option.CookieFile = None,
    ca_file: option.CaFile = None,
) -> None:
    """Run again and again, one run at a time; what was missed is not caught up on.

    Without --version this code's pipeline is uploaded and the schedule stays with it; `--version latest` takes the
    newest uploaded version of the day.

    \b
    rgsud pipeline schedule --cron '0 3 * * *' --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud
    rgsud pipeline schedule --every 6h --version latest --name six-hourly \\
        --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud
    """
    from rgsud_pipelines.schedule import describe, trigger

    when = trigger(cron, every)
    config, package, locations = _prepared(
        which, placement, cache, version, preset, settings, rainy=rainy, clean=clean, paired=paired, workdir=workdir
    )
    from rgsud_pipelines.kfp_session import session
    from rgsud_pipelines.package import run_parameters
    from rgsud_pipelines.schedule import schedule as start
    from rgsud_pipelines.submit import LATEST, job, reference, uploaded
    from rgsud_pipelines.submit import upload as upload_package

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        found = uploaded(client, package.name, version) if version else upload_package(client, package)
        parameters = run_parameters(found.pipeline_spec, config, **locations)
        source = reference(found, pinned=version != LATEST)
        body = job(client, source, parameters, experiment, name or package.name, service_account)
        typer.echo(f"{body['display_name']}: {describe(start(client, body, when, replace))}")


@pipeline.command()
def unschedule(
    name: Annotated[str, typer.Argument(help="of the schedule; `rgsud pipeline runs` lists them")],
    delete: Annotated[bool, typer.Option("--delete", help="do not keep it for the page's `enable`")] = False,
    host: option.Host = None,
    namespace: option.Namespace = None,
    token_file: option.TokenFile = None,
    cookie_file: option.CookieFile = None,
    ca_file: option.CaFile = None,
) -> None:
    """Stop a schedule: disable it, or delete it. Runs that have started go on.

    \b
    rgsud pipeline unschedule rgsud-training
    rgsud pipeline unschedule rgsud-training --delete
    """
    from rgsud_pipelines.kfp_session import session
    from rgsud_pipelines.schedule import unschedule as stop

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        stop(client, name, delete)
        typer.echo(f"{name}: {'deleted' if delete else 'disabled'}")


def _prepared(
    which: str,
    placement: str,
    cache: bool,
    version: str | None,
    preset: str,
    settings: list[str] | None,
    **locations: str | None,
) -> tuple[Config, Package, dict[str, str | None]]:
    """Settings, compiled pipeline and locations, all checked before a server hears of them."""
    from rgsud_lib.config import load_config
    from rgsud_lib.errors import ConfigError

    config = load_config(preset, settings)
    if version and not cache:
        raise ConfigError(
            "--no-cache cannot change a version that was uploaded already (Kubeflow would ignore it); "
            "leave --version out"
        )
    from rgsud_pipelines.package import compile_package, run_parameters

    package = compile_package(which, placement, cache)
    run_parameters(package.spec, config, **locations)
    return config, package, locations
