"""Where MLflow keeps the runs: the embedded SQLite store and the runs found or created in it by tag.

The explicit client is used throughout, never `mlflow.start_run`, because a set MLFLOW_RUN_ID would
silently replace the run asked for; nor `mlflow.set_tracking_uri`, which sets MLFLOW_TRACKING_URI for
the whole process. Needs mlflow; `tracking` imports this module lazily.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from rgsud_lib.storage.listing import canonical
from rgsud_lib.storage.remote import local_root
from rgsud_lib.tracking.address import shown

EXPERIMENT = "rgsud"
RUN_KEY, STAGE_KEY, STAGE, WORKDIR = "rgsud.run_key", "rgsud.stage_key", "rgsud.stage", "rgsud.workdir"
PARENT = "mlflow.parentRunId"
PIPELINE = "rgsud.pipeline_run"  # of a stage's run: which pipeline run it belongs to, whatever its parent is
SECONDS, SECONDS_BEFORE = "cost/seconds", "rgsud.seconds_before"  # spent in all; of these for earlier pipeline runs
logger = logging.getLogger("rgsud")


@dataclass(frozen=True)
class RunIds:
    """A stage's run and its parent; `owns_parent` is False where somebody else opens and closes the parent."""

    child: str
    parent: str | None
    owns_parent: bool
    resumed: bool


def is_final(error: Exception) -> bool:
    """Whether sending the same again is bound to fail: MLflow calls the record itself invalid."""
    return isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE"


def failures() -> tuple[type[Exception], ...]:
    """What a broken tracking server, database or artifact store can raise (requests' errors are OSErrors)."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    kinds: tuple[type[Exception], ...] = (MlflowException, SQLAlchemyError, CommandError, OSError)
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return kinds
    return (*kinds, Boto3Error, BotoCoreError, ClientError)


def tracking_uri(workdir: Path | str) -> str:
    """MLFLOW_TRACKING_URI where set, else the database of `workdir` (of this machine's cache for one in S3)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local_root(workdir) / 'mlflow.db'}"


def connect(workdir: Path | str) -> MlflowClient:
    """A client of the tracking store, which is created where it is embedded and absent."""
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")):
        os.environ.setdefault(name, value)  # MLflow's own defaults would hold up training for minutes
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its tracebacks; tracking warns itself
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        with _locked(workdir):
            _create_database(local_root(workdir))
    return MlflowClient(tracking_uri(workdir))


def open_runs(client: MlflowClient, workdir: Path | str, run_key: str, stage: str, key: str, name: str) -> RunIds:
    """Find or create the pipeline's parent run and the stage's child run.

    An unfinished child of the same stage key and workdir is continued. MLFLOW_RUN_ID, where set, names the run that
    an orchestrator made: a run that has a parent is this stage's own (Kubeflow's MLflow plugin), any other the parent.
    """
    with _locked(workdir):
        experiment = find_experiment(client, workdir)
        given = _given_run(client)
        old = _unfinished(client, experiment, key, workdir)
        parent, owns_parent = _parent(client, experiment, given, run_key, name)
        pipeline = _quotable(run_key) if owns_parent else parent
        if old is not None:
            if old.data.tags.get(PIPELINE) != pipeline:
                client.set_tag(old.info.run_id, SECONDS_BEFORE, str(old.data.metrics.get(SECONDS, 0.0)))
                client.set_tag(old.info.run_id, PIPELINE, pipeline)
            client.update_run(old.info.run_id, status="RUNNING")
            client.set_tag(old.info.run_id, PARENT, parent)  # it belongs to the pipeline run that finishes it
            return RunIds(old.info.run_id, parent, owns_parent, resumed=True)
        tags = {STAGE_KEY: key, WORKDIR: canonical(workdir), STAGE: stage, PIPELINE: pipeline}
        if given is not None and PARENT in given.data.tags:
            for tag, value in tags.items():
                client.set_tag(given.info.run_id, tag, value)
            return RunIds(given.info.run_id, parent, owns_parent, resumed=False)
        tags |= {PARENT: parent, "mlflow.source.name": "rgsud"}
        child = client.create_run(experiment, run_name=stage, tags=tags)
        return RunIds(child.info.run_id, parent, owns_parent, resumed=False)


def try_artifacts() -> str:
    """Write and delete a tiny file where artifacts of new runs go, on the server in MLFLOW_TRACKING_URI."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = connect(Path())
    found = client.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
    location = (found or client.get_experiment("0")).artifact_location
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "doctor")
        probe.write_text("rgsud doctor")
        place = get_artifact_repository(f"{location}/doctor-{uuid.uuid4().hex}", client.tracking_uri)
        place.log_artifact(str(probe))
        place.delete_artifacts(probe.name)
    return location


def open_parent(client: MlflowClient, workdir: Path | str, run_key: str, name: str) -> tuple[str, bool]:
    """Find or create the pipeline's parent run; False where somebody else opens and closes it."""
    with _locked(workdir):
        return _parent(client, find_experiment(client, workdir), _given_run(client), run_key, name)


def parents(client: MlflowClient, workdir: Path | str, run_key: str) -> list[str]:
    """The ids of a pipeline run's parents, the one that counts first; others come of tasks that began at once."""
    return [run.info.run_id for run in _tagged(client, find_experiment(client, workdir), RUN_KEY, run_key)]


def stage_runs(client: MlflowClient, workdir: Path | str, tag: str, value: str) -> list[Run]:
    """The stages' runs with this tag, the oldest first: PARENT gives a pipeline's, STAGE_KEY a result's."""
    runs = _tagged(client, find_experiment(client, workdir), tag, value)
    return [run for run in runs if STAGE in run.data.tags]


def _create_database(workdir: Path) -> None:
    """MLflow's migrations take seconds and do not survive a kill half-way: build beside, then rename."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database, partial = workdir / "mlflow.db", workdir / ".mlflow.db.partial"
    if database.exists():
        return
    for leftover in workdir.glob(f"{partial.name}*"):
        leftover.unlink()
    store = SqlAlchemyStore(f"sqlite:///{partial}", (workdir / "mlartifacts").as_uri())
    store.engine.dispose()
    os.replace(partial, database)


def find_experiment(client: MlflowClient, workdir: Path | str) -> str:
    """The id of the experiment that the environment names, or of ours, which is created where it is absent."""
    if os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    embedded = not os.environ.get("MLFLOW_TRACKING_URI")
    try:
        return client.create_experiment(name, (local_root(workdir) / "mlartifacts").as_uri() if embedded else None)
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another process was first
        if found is None:
            raise
        return found.experiment_id


def _given_run(client: MlflowClient) -> Run | None:
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        address = shown(client.tracking_uri)
        logger.warning("MLFLOW_RUN_ID=%s is unknown to %s; a run of our own is used", run_id, address)
        return None


def _unfinished(client: MlflowClient, experiment: str, key: str, workdir: Path | str) -> Run | None:
    place = canonical(workdir)
    runs = _tagged(client, experiment, STAGE_KEY, key)
    return next((run for run in runs if run.data.tags.get(WORKDIR) == place and run.info.status != "FINISHED"), None)


def _parent(client: MlflowClient, experiment: str, given: Run | None, run_key: str, name: str) -> tuple[str, bool]:
    if given is not None:
        return given.data.tags.get(PARENT, given.info.run_id), False
    found = _tagged(client, experiment, RUN_KEY, run_key)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id, True
    tags = {RUN_KEY: _quotable(run_key), "mlflow.source.name": "rgsud"}
    created = client.create_run(experiment, run_name=name, tags=tags)
    first, *_ = [*_tagged(client, experiment, RUN_KEY, run_key), created]  # the lock is this machine's: others look too
    return first.info.run_id, True


def _tagged(client: MlflowClient, experiment: str, tag: str, value: str) -> list[Run]:
    query = f"tags.`{tag}` = '{_quotable(value)}'"
    return list(client.search_runs([experiment], query, order_by=["attributes.start_time ASC"]))


def _quotable(value: str) -> str:
    return re.sub(r"[^\w.:/@ -]", "_", value)


@contextmanager
def _locked(workdir: Path | str) -> Iterator[None]:
    """One process at a time opens runs in a workdir: neither databases nor parent runs come twice."""
    folder = local_root(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".mlflow.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
