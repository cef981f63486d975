"""The comparison in MLflow: a run of its own, among those it compares, with the tables as its description.

The same runs compared again are the same run. What it compares is told that by a tag, so that one finds it from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib.comparison.compare import Comparison
from rgsud_lib.comparison.resolve import mlflow_client
from rgsud_lib.comparison.tables import cost_table, headline, markdown, metrics_table, settings_table
from rgsud_lib.errors import ComparisonError
from rgsud_lib.lineage import Place

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KEY, COMPARED_IN = "rgsud.comparison", "rgsud.compared_in"


def record(comparison: Comparison, files: list[Path], workdir: Place) -> str:
    """Log the files; returns the MLflow run's id, nothing where there is no tracking.

    Raises ComparisonError: the server refused or cannot be reached (the files are there all the same).
    """
    from rgsud_lib.registry import unavailable

    if unavailable():
        return ""
    from rgsud_lib.tracking import mlflow_store
    from rgsud_lib.tracking.address import first_line

    try:
        opened = mlflow_client(workdir)
        return _log(*opened, comparison, files) if opened else ""
    except mlflow_store.failures() as error:
        raise ComparisonError(
            f"the comparison could not be logged to MLflow ({first_line(error)}); it is in {files[0]}"
        ) from error


def _log(client: MlflowClient, experiment: str, comparison: Comparison, files: list[Path]) -> str:
    compared = {run.letter: _parent(client, experiment, run.bundle.digest) for run in comparison.runs}
    query = f"tags.`{KEY}` = '{comparison.key}'"
    known = client.search_runs([experiment], query, max_results=1)
    tags = {KEY: comparison.key, "mlflow.source.name": "rgsud", "rgsud.dataset_manifest": comparison.runs[0].manifest}
    tags |= {f"rgsud.compares_{letter}": run_id for letter, run_id in compared.items() if run_id}
    tags["mlflow.note.content"] = _description(comparison, experiment, compared)
    name = "compare " + " ".join(run.bundle.digest[:8] for run in comparison.runs)
    run = known[0] if known else client.create_run(experiment, run_name=name, tags=tags)
    for tag, value in tags.items() if known else ():
        client.set_tag(run.info.run_id, tag, value)
    for file in files:
        client.log_artifact(run.info.run_id, str(file))
    client.set_terminated(run.info.run_id, "FINISHED")
    for run_id in filter(None, compared.values()):
        client.set_tag(run_id, COMPARED_IN, run.info.run_id)
    return str(run.info.run_id)


def _parent(client: MlflowClient, experiment: str, digest: str) -> str:
    """The pipeline run that made an evaluation, as far as this server knows it."""
    from rgsud_lib.tracking import mlflow_store
    from rgsud_lib.tracking.mlflow_models import BUNDLE_DIGEST

    query = f"tags.`{BUNDLE_DIGEST}` = '{digest}' AND tags.`{mlflow_store.STAGE}` = 'evaluate'"
    found = client.search_runs([experiment], query, max_results=1)
    return found[0].data.tags.get(mlflow_store.PARENT, found[0].info.run_id) if found else ""


def _description(comparison: Comparison, experiment: str, compared: dict[str, str]) -> str:
    """Markdown, with links that work on any page of this server."""
    runs = [
        f"- {run.letter}: [{run.name}](#/experiments/{experiment}/runs/{compared[run.letter]})"
        if compared[run.letter]
        else f"- {run.letter}: {run.name}"
        for run in comparison.runs
    ]
    parts = [f"**{headline(comparison)}**", "\n".join(runs)]
    for table in (metrics_table(comparison), settings_table(comparison), cost_table(comparison)):
        parts.append(f"**{table.title}**\n\n{markdown(table) if table.rows else 'none'}")
    parts += [f"Note: {note}" for note in comparison.notes]
    return "\n\n".join([*parts, "Pictures: `compare.html` among the artifacts."])
