"""`rgsud pipeline ...`: compile, upload, submit, watch and schedule on Kubeflow. Imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rgsud_pipelines.commands import pipeline_options as option

if TYPE_CHECKING:
    from rgsud_lib.config import Config
    from rgsud_pipelines.cluster.package import Package

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
    which: option.Pipeline = "training", placement: option.Placement = "gpu",
    host: option.Host = None, namespace: option.Namespace = None,
    token_file: option.TokenFile = None, cookie_file: option.CookieFile = None, ca_file: option.CaFile = None,
) -> None:  # fmt: skip
    """Upload the compiled pipeline as a version, named by code version and digest; twice makes one version.

    rgsud pipeline upload training --placement gpu
    """
    from rgsud_pipelines.cluster.kfp_session import session
    from rgsud_pipelines.cluster.package import compile_package
    from rgsud_pipelines.cluster.submit import upload as upload_package

    package = compile_package(which, placement)
    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        typer.echo(f"{package.name} {upload_package(client, package).display_name}")


@pipeline.command()
def submit(
    which: option.Pipeline = "training", placement: option.Placement = "gpu", version: option.Version = None,
    rainy: option.Rainy = None, clean: option.Clean = None, paired: option.Paired = None,
    workdir: option.Workdir = None, derained: option.Derained = None, model: option.Model = None,
    preset: option.Preset = "paper", settings: option.Override = None,
    experiment: option.Experiment = "rgsud", name: option.RunName = None,
    cache: option.Cache = True, service_account: option.ServiceAccount = None, wait: option.Wait = False,
    host: option.Host = None, namespace: option.Namespace = None,
    token_file: option.TokenFile = None, cookie_file: option.CookieFile = None, ca_file: option.CaFile = None,
) -> None:  # fmt: skip
    """Start a run. Without --version the pipeline is compiled here and sent along.

    \b
    rgsud pipeline submit --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud --wait
    rgsud pipeline submit --preset cpu --placement cpu --set training.seed=7 --no-cache \\
        --rainy s3://b/rain --clean s3://b/clean --paired s3://b/pairs --workdir s3://b/rgsud
    rgsud pipeline submit --version latest --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud
    rgsud pipeline submit derain --rainy s3://b/new --derained s3://b/derained --model models:/rgsud@champion
    """
    places = {"rainy": rainy, "clean": clean, "paired": paired, "workdir": workdir}
    places |= {"derained": derained, "model": model}
    config, package = _checked(which, placement, version, cache, preset, settings, places)
    from rgsud_pipelines.cluster.kfp_session import session
    from rgsud_pipelines.cluster.package import package_name, run_name, run_parameters
    from rgsud_pipelines.cluster.submit import inline, job, start, uploaded
    from rgsud_pipelines.cluster.watch import wait as wait_for

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        source = inline(package) if package else uploaded(client, package_name(which, placement), version)
        parameters = run_parameters(source.spec, config, **places)
        run = start(client, job(client, source, parameters, experiment, name or run_name(config), service_account))
        typer.echo(client.run_link(run.run_id))
        if wait:
            wait_for(client, run.run_id)


@pipeline.command()
def runs(
    limit: Annotated[int, typer.Option(min=1, max=200, help="how many")] = 10,
    experiment: Annotated[str | None, typer.Option(help="only this one's")] = None,
    host: option.Host = None, namespace: option.Namespace = None,
    token_file: option.TokenFile = None, cookie_file: option.CookieFile = None, ca_file: option.CaFile = None,
) -> None:  # fmt: skip
    """List the newest runs with state and duration, then all schedules.

    rgsud pipeline runs --limit 20 --experiment rgsud
    """
    from rgsud_pipelines.cluster.kfp_session import session
    from rgsud_pipelines.cluster.watch import runs_table, schedules_table

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        typer.echo(f"{runs_table(client, limit, experiment)}\n\n{schedules_table(client)}")


@pipeline.command()
def schedule(
    which: option.Pipeline = "training", placement: option.Placement = "gpu", version: option.Version = None,
    cron: option.Cron = None, every: option.Every = None,
    rainy: option.Rainy = None, clean: option.Clean = None, paired: option.Paired = None,
    workdir: option.Workdir = None, derained: option.Derained = None, model: option.Model = None,
    preset: option.Preset = "paper", settings: option.Override = None,
    experiment: option.Experiment = "rgsud", name: option.ScheduleName = None, replace: option.Replace = False,
    cache: option.Cache = True, service_account: option.ServiceAccount = None,
    host: option.Host = None, namespace: option.Namespace = None,
    token_file: option.TokenFile = None, cookie_file: option.CookieFile = None, ca_file: option.CaFile = None,
) -> None:  # fmt: skip
    """Run again and again, one run at a time; what was missed is not caught up on.

    Without --version this code's pipeline is uploaded and the schedule stays with it; `--version latest` takes the
    newest uploaded version there is by then.

    \b
    rgsud pipeline schedule --cron '0 3 * * *' --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud
    rgsud pipeline schedule retraining --every 6h --version latest --name six-hourly \\
        --rainy s3://b/rain --clean s3://b/clean --workdir s3://b/rgsud
    """
    from rgsud_pipelines.cluster.schedule import add, describe, trigger

    when = trigger(cron, every)
    places = {"rainy": rainy, "clean": clean, "paired": paired, "workdir": workdir}
    places |= {"derained": derained, "model": model}
    config, package = _checked(which, placement, version, cache, preset, settings, places)
    from rgsud_pipelines.cluster.kfp_session import session
    from rgsud_pipelines.cluster.package import package_name, run_parameters
    from rgsud_pipelines.cluster.submit import inline, job, uploaded
    from rgsud_pipelines.cluster.submit import upload as upload_package

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        if package and cache:
            version = upload_package(client, package).display_name
        uploads = package_name(which, placement)
        # Uncached, it is sent along: uploaded, it would be the latest version for all others.
        source = uploaded(client, uploads, version, follow=True) if version else inline(package)
        parameters = run_parameters(source.spec, config, **places)
        name = name or uploads
        added = add(client, job(client, source, parameters, experiment, name, service_account), when, replace)
        typer.echo(f"{name}: {describe(added)}")


@pipeline.command()
def unschedule(
    name: Annotated[str, typer.Argument(help="of the schedule; `rgsud pipeline runs` lists them")],
    delete: Annotated[bool, typer.Option("--delete", help="do not keep it for the page's `enable`")] = False,
    host: option.Host = None, namespace: option.Namespace = None,
    token_file: option.TokenFile = None, cookie_file: option.CookieFile = None, ca_file: option.CaFile = None,
) -> None:  # fmt: skip
    """Stop a schedule: disable it, or delete it. Runs that have started go on.

    \b
    rgsud pipeline unschedule rgsud-training
    rgsud pipeline unschedule rgsud-training --delete
    """
    from rgsud_pipelines.cluster.kfp_session import session
    from rgsud_pipelines.cluster.schedule import remove

    with session(host, namespace, token_file, cookie_file, ca_file) as client:
        remove(client, name, delete)
        typer.echo(f"{name}: {'deleted' if delete else 'disabled'}")


def _checked(
    which: str, placement: str, version: str | None, cache: bool,
    preset: str, settings: list[str] | None, places: dict[str, str | None],
) -> tuple[Config, Package | None]:  # fmt: skip
    """Settings and, unless an uploaded version is asked for, the compiled pipeline; before a server hears of them."""
    from rgsud_lib.config import load_config
    from rgsud_lib.errors import ConfigError

    config = load_config(preset, settings)
    if version and not cache:
        raise ConfigError(
            "--no-cache cannot change a version that was uploaded already (Kubeflow would ignore it); "
            "leave --version out"
        )
    if version:
        return config, None
    from rgsud_pipelines.cluster.package import compile_package, run_parameters

    package = compile_package(which, placement, cache)
    run_parameters(package.spec, config, **places)
    return config, package
