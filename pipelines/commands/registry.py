"""`rgsud registry`: which model serves, which came before, and how to change it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rgsud_lib.cost.prices import Prices as PriceTable
    from rgsud_lib.registry import Registry

registry = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Versions of the model, and which of them serves.

\b
Every run registers its model as `challenger`; the promotion gate makes it `champion` if it is better.
  rgsud registry list
  rgsud derain my/rain derained --model models:/rgsud@champion
By hand:
  rgsud registry promote 3 --why "better at night"
  rgsud registry rollback --why "darkens skies"
On a cluster:
  rgsud registry manifest > manifests/serving/inference-service.yaml

The registry is MLFLOW_TRACKING_URI where that is set, else the database in --workdir.""",
)
Workdir = Annotated[str, typer.Option(help="of the runs, where MLFLOW_TRACKING_URI is not set")]
Why = Annotated[str, typer.Option(help="kept with the promotion, beside who and when")]
Prices = Annotated[Path | None, typer.Option(envvar="RGSUD_PRICES", help="price table (YAML), for money")]
RUNS = "rgsud-runs"


@registry.command("list")
def show(workdir: Workdir = RUNS, prices: Prices = None) -> None:
    """All versions, newest first, and the last promotions.

    rgsud registry list --workdir rgsud-runs --prices prices.yaml
    """
    from rgsud_lib.registry.promotion_log import records, settle

    opened = _open(workdir)
    settle(opened)
    typer.echo(_versions(opened, prices))
    promotions = records(opened)
    if promotions:
        typer.echo("\nPromotions, newest first")
    for record in promotions[:10]:
        tags = record.tags
        change = f"{tags['rgsud.replaces']} -> {tags['rgsud.promoted_version']}"
        when, by = tags["rgsud.promoted_at"], tags["rgsud.promoted_by"]
        typer.echo(f"  #{record.version}  {when}  {change}  by {by}: {tags['rgsud.promoted_why']}")


@registry.command()
def promote(
    version: Annotated[str, typer.Argument(help="a version's number, or an alias such as challenger")],
    why: Why = "by hand",
    workdir: Workdir = RUNS,
) -> None:
    """Make a version the champion, whatever the gate said; the present champion becomes `previous`.

    rgsud registry promote challenger --why "the gate had too few images"
    """
    from rgsud_lib.registry import CHAMPION, promotion_log

    opened = _open(workdir)
    champion = opened.aliases().get(CHAMPION, promotion_log.NONE)
    number = str(opened.find(version).version)
    promotion_log.promote(opened, number, champion, why)
    typer.echo(f"version {number} is the champion (before: {champion})")


@registry.command()
def rollback(why: Why = "rolled back by hand", workdir: Workdir = RUNS) -> None:
    """Make `previous` the champion again.

    rgsud registry rollback --why "darkens skies"
    """
    from rgsud_lib.registry.promotion_log import rollback

    typer.echo(f"version {rollback(_open(workdir), why)} is the champion again")


@registry.command()
def manifest(
    version: Annotated[str, typer.Argument(help="a version's number, or an alias")] = "champion",
    workdir: Workdir = RUNS,
) -> None:
    """Print the InferenceService (KServe) that serves a version with the image that RGSUD_IMAGE names by digest.

    rgsud registry manifest > manifests/serving/inference-service.yaml
    """
    from rgsud_components._image import image
    from rgsud_lib.serving.manifest import inference_service

    typer.echo(inference_service(_open(workdir).find(version), image()), nl=False)


def _open(workdir: str) -> Registry:
    import os

    from rgsud_lib.errors import RegistryError
    from rgsud_lib.registry import Registry
    from rgsud_lib.storage.remote import local_root

    if not os.environ.get("MLFLOW_TRACKING_URI") and not (local_root(workdir) / "mlflow.db").exists():
        raise RegistryError(f"no registry in {workdir} (mlflow.db is missing there); run `rgsud run` first")
    return Registry.open(workdir)


def _versions(opened: Registry, prices: Path | None) -> str:
    import io
    import time

    from rich.console import Console
    from rich.table import Table

    from rgsud_lib.cost.prices import read_prices

    table_of_prices = read_prices(prices)
    aliases: dict[str, list[str]] = {}
    for alias, number in sorted(opened.aliases().items()):
        aliases.setdefault(number, []).append(alias)
    table = Table(title=f"rgsud at {opened.address}", title_justify="left")
    for column in ("version", "alias", "registered", "preset", "reward", "dataset", "weights", "cost", "gate"):
        table.add_column(column)
    for version in opened.versions():
        tags, number = version.tags, str(version.version)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.creation_timestamp / 1000))
        digests = (tags.get(f"rgsud.{name}_digest", "")[:8] for name in ("dataset", "weights"))
        names = (tags.get(f"rgsud.{name}", "") for name in ("preset", "reward"))
        cost, gate = _cost(tags, table_of_prices), tags.get("rgsud.gate", "")
        table.add_row(number, " ".join(aliases.get(number, [])), when, *names, *digests, cost, gate)
    console = Console(file=io.StringIO(), width=150, highlight=False, color_system=None)
    console.print(table)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _cost(tags: dict[str, str], prices: PriceTable | None) -> str:
    """What a version took with all that went into it; nothing where that was not measured."""
    import json

    from rgsud_lib.cost.spent import Spent, duration, total
    from rgsud_lib.registry import COST

    if COST not in tags:
        return ""
    sums = total(map(Spent.parse, json.loads(tags[COST])), prices)
    money = f", {sums.money:,.2f} {prices.currency}" if prices else ""
    return f"{duration(sums.seconds)}, {sums.gpu_seconds:,.0f} GPU-s{money}"
