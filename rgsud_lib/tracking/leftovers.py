"""What races and kills leave in MLflow, for the last task to put in order.

Tasks of several machines that begin at once may each have opened a parent for the one pipeline run; a stage that was
killed right after its work has a bundle, and a run that does not know of it. Needs mlflow where it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib.bundle import MARKER, parse_bundle
from rgsud_lib.stages import KINDS, PARTS, Place, place_of
from rgsud_lib.storage.remote import find
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.tracking.facts import Experiment
from rgsud_lib.tracking.mlflow_models import BUNDLE_DIGEST

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

DUPLICATE = "rgsud.duplicate_of"  # the id of the parent that counts


def adopt_children(
    client: MlflowClient, workdir: Place, run_key: str, parent: str, experiment: Experiment | None = None
) -> list[str]:
    """Give `parent` the children of all other parents of its pipeline run; returns their ids, still to be closed."""
    from rgsud_lib.tracking import mlflow_store

    others = [run_id for run_id in mlflow_store.parents(client, workdir, run_key, experiment) if run_id != parent]
    for other in others:
        for child in mlflow_store.stage_runs(client, workdir, mlflow_store.PARENT, other, experiment):
            client.set_tag(child.info.run_id, mlflow_store.PARENT, parent)
        client.set_tag(other, DUPLICATE, parent)
    return others


def unsaid_bundle(run: Run, workdir: Place) -> str:
    """The digest of what a stage made whose run was not finished by it; empty where there is nothing, or it was.

    Raises BundleError: unreadable; DataError: S3 refuses or cannot be reached.
    """
    from rgsud_lib.tracking import mlflow_store

    stage = run.data.tags[mlflow_store.STAGE]
    if run.info.status == "FINISHED" or stage not in KINDS:
        return ""
    used_up = run.data.tags.get(BUNDLE_DIGEST, "") if stage in PARTS else ""  # a part's bundle is gone after its use
    return sealed_digest(stage, run.data.tags[mlflow_store.STAGE_KEY], workdir) or used_up


def sealed_digest(stage: str, key: str, workdir: Place) -> str:
    """The digest of a stage's finished bundle in a workdir, empty where there is none. Raises as `unsaid_bundle`."""
    place = place_of(stage, key, workdir)
    if is_remote(place):
        found = find(place)
        return found.digest if found else ""
    marker = Path(place) / MARKER
    return parse_bundle(marker.read_bytes(), place).digest if marker.is_file() else ""
