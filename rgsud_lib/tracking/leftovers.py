"""What races leave in MLflow, for the last task to put in order. Needs mlflow where it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rgsud_lib.stages import Place

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DUPLICATE = "rgsud.duplicate_of"  # the id of the parent that counts


def adopt_children(client: MlflowClient, workdir: Place, run_key: str, parent: str) -> list[str]:
    """Give `parent` the children of all other parents of its pipeline run; returns their ids, still to be closed."""
    from rgsud_lib.tracking import mlflow_store

    others = [run_id for run_id in mlflow_store.parents(client, workdir, run_key) if run_id != parent]
    for other in others:
        for child in mlflow_store.stage_runs(client, workdir, mlflow_store.PARENT, other):
            client.set_tag(child.info.run_id, mlflow_store.PARENT, parent)
        client.set_tag(other, DUPLICATE, parent)
    return others
