"""The exported derainer among MLflow's LoggedModels: logged by the explicit client, found again by its bundle.

`Model.log` of MLflow would do it through its global run and tracking address (see `mlflow_store`).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib.tracking.curve_names import curve_name

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

NAME = "derainer"
MODEL_ID, BUNDLE_DIGEST, BUNDLE_PATH = "rgsud.model_id", "rgsud.bundle_digest", "rgsud.bundle_path"
SCORES = "metrics.json"
# What `rgsud derain` reads, and what a person reads: the card with its pictures, and the scores that it shows.
COMPANIONS = ("*.safetensors", "model_card.md", "strip.png", SCORES)


def add_companions(exported: Path, model: Path) -> None:
    """Put an export's safetensors file and model card into the folder of its MLflow model, as links where possible."""
    for source in (path for pattern in COMPANIONS for path in sorted(exported.glob(pattern))):
        copy = model / source.name
        copy.unlink(missing_ok=True)
        try:
            os.link(source, copy)
        except OSError:
            shutil.copy2(source, copy)


def log_model(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Make the MLflow model in `folder` the run's LoggedModel; doing it again changes nothing.

    Its MLmodel learns its ids; the file is replaced, since others may share its bytes.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    description = Model.load(str(folder))
    experiment = client.get_run(run_id).info.experiment_id
    made = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    if made:
        model = made[0]
    else:
        tags = {f"rgsud.{name}": str(value) for name, value in (description.metadata or {}).items()}
        model = client.create_logged_model(experiment, NAME, run_id, tags, model_type=NAME)
    description.model_id = description.model_uuid = model.model_id
    description.run_id, description.artifact_path = run_id, model.artifact_location
    beside = folder / ".MLmodel.partial"
    description.save(str(beside))
    beside.replace(folder / "MLmodel")
    client.log_model_artifacts(model.model_id, str(folder))
    outputs = client.get_run(run_id).outputs
    if outputs is None or model.model_id not in {output.model_id for output in outputs.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    _log_scores(client, run_id, model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
    client.set_tag(run_id, MODEL_ID, model.model_id)


def _log_scores(client: MlflowClient, run_id: str, model_id: str, folder: Path) -> None:
    """The evaluation's means of this model, tied to it and to the dataset that they were measured on."""
    from mlflow.entities import Metric
    from mlflow.models import Model

    if not (folder / SCORES).is_file() or client.get_logged_model(model_id).metrics:
        return
    summary = json.loads((folder / SCORES).read_text())
    dataset, now = (Model.load(str(folder)).metadata or {}).get("dataset_digest"), int(time.time() * 1000)
    means = {
        f"{group}/{name}": value
        for group in ("pairs", "held_back_rainy")
        if summary[group]
        for name, value in summary[group]["mean"][summary["models"][-1]].items()
    }
    about = {"model_id": model_id, "dataset_name": "dataset" if dataset else None, "dataset_digest": dataset}
    metrics = [Metric(curve_name(name), value, now, 0, **about) for name, value in means.items()]
    client.log_batch(run_id, metrics=metrics)


def find_logged_model(client: MlflowClient, experiment: str, bundle_digest: str) -> str | None:
    """The id of the LoggedModel of the newest run that made this export bundle, None where no run logged it."""
    query = f"tags.`{BUNDLE_DIGEST}` = '{bundle_digest}'"
    runs = client.search_runs([experiment], query, order_by=["attributes.start_time DESC"])
    return next((run.data.tags[MODEL_ID] for run in runs if MODEL_ID in run.data.tags), None)
