"""The `rgsud` command. Imports happen inside the commands, so that help is instant."""

from __future__ import annotations

import os
import sys
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rgsud_lib import __version__
from rgsud_pipelines.commands.bench import bench
from rgsud_pipelines.commands.compare import compare
from rgsud_pipelines.commands.data import data
from rgsud_pipelines.commands.derain import derain
from rgsud_pipelines.commands.derain_one import derain_one
from rgsud_pipelines.commands.doctor import doctor
from rgsud_pipelines.commands.lineage import lineage
from rgsud_pipelines.commands.new_data import new_data
from rgsud_pipelines.commands.pipeline import pipeline
from rgsud_pipelines.commands.registry import registry
from rgsud_pipelines.commands.serve import serve
from rgsud_pipelines.commands.tracking import tracking

if TYPE_CHECKING:
    from rgsud_lib.config import Config

app = typer.Typer(
    name="rgsud",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Train an image derainer from two unpaired folders of photographs, rainy ones and clean ones.

\b
Try it, in six minutes, without data of your own:
  rgsud run
Your photographs:
  rgsud run --rainy my/rain --clean my/clean --preset cpu
See curves and pictures, then use the model:
  rgsud ui
  rgsud derain my/rain derained --model rgsud-runs

The same command on the same --workdir resumes where it was stopped. `rgsud COMMAND --help` tells more.""",
)

app.add_typer(registry, name="registry")
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
app.add_typer(tracking, name="tracking")

Preset = Annotated[
    str, typer.Option(help="demo, haze: 6 minutes on 2 cores, cpu: 30 minutes, paper: published sizes (GPU)")
]
Override = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a setting; `rgsud config` lists them")
]
Workdir = Annotated[str, typer.Option(help="folder or s3:// prefix: everything a run makes lies here")]
Folder = Annotated[str | None, typer.Option(help="folder or s3:// address; default: the newest one in the workdir")]
Rainy = Annotated[str | None, typer.Option(help="folder or s3:// prefix of rainy photographs")]
Clean = Annotated[str | None, typer.Option(help="folder or s3:// prefix of clean photographs of other scenes")]
Paired = Annotated[str | None, typer.Option(help="folder with rain/ and clean/ (same names): evaluation only")]
RUNS = "rgsud-runs"
app.add_typer(pipeline)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True)] = False) -> None:
    if show:
        typer.echo(f"rgsud {__version__}")
        raise typer.Exit


@app.command()
def run(
    rainy: Rainy = None,
    clean: Clean = None,
    paired: Paired = None,
    preset: Preset = "demo",
    settings: Override = None,
    workdir: Workdir = RUNS,
) -> None:
    """Run the whole pipeline: prepare, recycle, reinforce, evaluate, export.

    \b
    rgsud run                                              photographs that come with scikit-image, drawn rain
    rgsud run --rainy my/rain --clean my/clean             two folders, no pairs needed
    rgsud run --rainy r --clean c --paired p --preset cpu  with PSNR and SSIM on the pairs in p/rain and p/clean
    rgsud run --set training.steps=300 --set training.seed=7
    rgsud run --workdir s3://bucket/runs                   MLflow's runs: MLFLOW_TRACKING_URI, else this machine's cache
    """
    config, sources = _inputs(preset, settings, rainy, clean, paired, workdir)
    from rgsud_pipelines.local import run_pipeline

    folders = run_pipeline(config, *sources, workdir)
    _show(folders["evaluation"], workdir, folders["exported"])


@app.command()
def prepare(
    rainy: Rainy = None,
    clean: Clean = None,
    paired: Paired = None,
    preset: Preset = "demo",
    settings: Override = None,
    workdir: Workdir = RUNS,
) -> None:
    """Stage 1 of 5: check, deduplicate and split the images.

    rgsud prepare --rainy my/rain --clean my/clean
    """
    config, sources = _inputs(preset, settings, rainy, clean, paired, workdir)
    from rgsud_lib import stages

    typer.echo(stages.prepare(config, *sources, _absolute(workdir)))


@app.command()
def recycle(
    dataset: Folder = None, preset: Preset = "demo", settings: Override = None, workdir: Workdir = RUNS
) -> None:
    """Stage 2 of 5: reward recycling, the paper's stage 1 (after a warm start, if that is on).

    rgsud recycle --preset cpu
    """
    config = _config(preset, settings)
    from rgsud_lib import stages

    typer.echo(stages.recycle(config, _newest("dataset", dataset, workdir), _absolute(workdir)))


@app.command()
def reinforce(
    dataset: Folder = None,
    recycled: Folder = None,
    preset: Preset = "demo",
    settings: Override = None,
    workdir: Workdir = RUNS,
) -> None:
    """Stage 3 of 5: self-reinforcement training, the paper's stage 2.

    rgsud reinforce --set reinforcement.source=last
    """
    config = _config(preset, settings)
    from rgsud_lib import stages

    inputs = _newest("dataset", dataset, workdir), _newest("recycled", recycled, workdir)
    typer.echo(stages.reinforce(config, *inputs, _absolute(workdir)))


@app.command()
def evaluate(
    dataset: Folder = None,
    recycled: Folder = None,
    reinforced: Folder = None,
    preset: Preset = "demo",
    settings: Override = None,
    workdir: Workdir = RUNS,
) -> None:
    """Stage 4 of 5: score every model and write the report.

    rgsud evaluate --set evaluation.strips=12
    """
    config = _config(preset, settings)
    from rgsud_lib import stages

    models = _newest("recycled", recycled, workdir), _newest("reinforced", reinforced, workdir)
    _show(stages.evaluate(config, _newest("dataset", dataset, workdir), *models, _absolute(workdir)), workdir)


@app.command()
def export(
    dataset: Folder = None,
    reinforced: Folder = None,
    evaluation: Folder = None,
    preset: Preset = "demo",
    settings: Override = None,
    workdir: Workdir = RUNS,
) -> None:
    """Stage 5 of 5: safetensors, ONNX, MLflow model and model card.

    rgsud export
    """
    config = _config(preset, settings)
    from rgsud_lib import stages
    from rgsud_lib.storage.s3 import is_remote

    inputs = [
        _newest(kind, given, workdir)
        for kind, given in (("dataset", dataset), ("reinforced", reinforced), ("evaluation", evaluation))
    ]
    exported = stages.export(config, *inputs, _absolute(workdir))
    typer.echo(exported if is_remote(exported) else Path(workdir) / "export")


app.command()(derain)


@app.command("audit-rewards")
def audit_rewards(
    scorers: Annotated[str, typer.Option(help="names, separated by commas; sums such as critic+2*niqe too")],
    pairs: Annotated[str | None, typer.Option(help="folder with rain/ and clean/ (same names)")] = None,
    checkpoints: Annotated[
        list[str] | None, typer.Option(help="model file, stage's folder, or a workdir (all its models); repeatable")
    ] = None,
    candidates: Annotated[
        list[str] | None, typer.Option(help="folder of outputs under the pairs' names; repeatable")
    ] = None,
    clean: Annotated[
        str | None, typer.Option(help="clean photographs: scorers are fitted on them; without --pairs, rain is drawn")
    ] = None,
    preset: Preset = "demo",
    settings: Override = None,
    workdir: Workdir = RUNS,
    out: Annotated[Path | None, typer.Option(help="default: audit in the workdir")] = None,
) -> None:
    """Which reward ranks outputs of your models as the clean images do? At least two models or folders.

    \b
    rgsud audit-rewards --pairs p --checkpoints rgsud-runs --scorers rain_layer,decorrelation,niqe
    rgsud audit-rewards --pairs p --candidates out1 --candidates out2 --scorers rain_layer,niqe
    rgsud audit-rewards --clean my/clean --checkpoints rgsud-runs --scorers rain_layer,niqe
    """
    config = _config(preset, settings)
    from rgsud_lib.storage.remote import local_root, model_path

    root, models = local_root(workdir), [model_path(checkpoint) for checkpoint in checkpoints or []]
    folder = out or root / "audit"
    from rgsud_lib.rewards.audit import audit_rewards as audit
    from rgsud_lib.rewards.audit.report import summary_table

    names = [name.strip() for name in scorers.split(",") if name.strip()]
    typer.echo(summary_table(audit(config, pairs, clean, models, candidates or [], names, root, folder)))
    typer.echo(f"\nreport  {folder / 'report.html'}")


app.command("derain-one")(derain_one)
app.command("new-data")(new_data)
app.command()(compare)
app.command()(serve)


@app.command()
def ui(workdir: Workdir = RUNS, port: Annotated[int, typer.Option(help="of the page on this machine")] = 5000) -> None:
    """Open the runs in MLflow: curves, pictures with a step slider, settings, reports.

    rgsud ui --workdir rgsud-runs
    """
    command = _mlflow_command(workdir, port)
    typer.echo(f"{' '.join(command)}\nhttp://127.0.0.1:{port} (Ctrl-C ends it)")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # starts in half the time without
    os.execv(sys.executable, [sys.executable, "-m", *command])


@app.command("config")
def show_config(preset: Preset = "demo", settings: Override = None) -> None:
    """Print every setting of a preset with its meaning.

    rgsud config --preset cpu --set training.steps=2000
    """
    import json

    config = _config(preset, settings)
    for path, value in config.flat().items():
        *sections, field = path.split(".")
        known = type(reduce(getattr, sections, config)).model_fields.get(field)  # a derainer's own are not described
        described = known.description if known else None
        text = value if isinstance(value, str) else json.dumps(value)
        typer.echo(f"{path}={text}" + (f"  # {described}" if described else ""))


app.command()(doctor)
app.command()(lineage)


def main() -> None:
    """Entry point: errors that a user can do something about are printed without a traceback."""
    from rgsud_lib.task import explain, log_to_stderr

    log_to_stderr()
    try:
        app()
    except BaseException as error:
        known = None if isinstance(error, SystemExit) else explain(error)
        if known is None:
            raise
        typer.echo(f"error: {known[1]}", err=True)
        raise SystemExit(known[0]) from None


def _config(preset: str, settings: list[str] | None) -> Config:
    from rgsud_lib.config import load_config

    return load_config(preset, settings)


def _inputs(
    preset: str, settings: list[str] | None, rainy: str | None, clean: str | None, paired: str | None, workdir: str
) -> tuple[Config, tuple[str, str, str | None]]:
    """The configuration and the image sources, both checked; the demo makes its own where none are given."""
    from rgsud_lib.errors import ConfigError
    from rgsud_lib.presets import EMBEDDED

    config = _config(preset, settings)
    if rainy is None and clean is None and paired is None and preset in EMBEDDED:
        from rgsud_lib.data.demo import make_demo_data
        from rgsud_lib.storage.remote import local_root

        degradation = config.degradation.name
        rainy, clean, paired = make_demo_data(local_root(workdir) / f"demo-{degradation}", degradation)
    if rainy is None or clean is None:
        raise ConfigError("give both --rainy DIR and --clean DIR (only --preset demo and haze bring photographs)")
    from rgsud_lib.data.prepare import source_digest

    source_digest(rainy, clean, paired)
    return config, (_absolute(rainy), _absolute(clean), _absolute(paired) if paired else None)


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).resolve())


def _newest(kind: str, given: str | None, workdir: str) -> str | Path:
    from rgsud_lib.storage.remote import newest

    return given or newest(kind, workdir)


def _show(evaluation: str | Path, workdir: str, exported: str = "") -> None:
    import json

    from rgsud_lib.cost.model import all_spent, model_cost
    from rgsud_lib.cost.prices import read_prices
    from rgsud_lib.cost.spent import words
    from rgsud_lib.evaluation.report import summary_table
    from rgsud_lib.lineage import walk
    from rgsud_lib.storage.remote import pulled
    from rgsud_lib.storage.s3 import is_remote

    folder = pulled(evaluation)
    typer.echo(summary_table(json.loads((folder / "metrics.json").read_text())))
    typer.echo(f"\ncost    {words(all_spent(model_cost(walk(exported or evaluation))), read_prices())}")
    typer.echo(f"report  {folder / 'report.html'}")
    models = pulled(exported) if is_remote(exported) else Path(workdir) / "export"
    for file in sorted(models.glob("*.safetensors")):
        typer.echo(f"model   {file}")
    typer.echo(f"runs    rgsud ui --workdir {workdir}")


def _mlflow_command(workdir: str, port: int) -> list[str]:
    from rgsud_lib.errors import ConfigError
    from rgsud_lib.storage.remote import local_root

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local_root(workdir) / 'mlflow.db'}"
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise ConfigError(f"no runs in {workdir} yet (mlflow.db is missing there); run `rgsud run` first")
    if uri.startswith("http"):
        raise ConfigError(f"the runs are on a server: open {uri} in a browser")
    return ["mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
