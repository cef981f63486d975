"""Where MLflow keeps the runs: the embedded SQLite store or a server, and the runs found there by tag.

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
from pathlib import Path

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from rgsud_lib.storage.remote import local_root
from rgsud_lib.tracking.address import shown
from rgsud_lib.tracking.facts import Experiment, Opening

EXPERIMENT = "rgsud"
RUN_KEY, STAGE_KEY, STAGE, WORKDIR = "rgsud.run_key", "rgsud.stage_key", "rgsud.stage", "rgsud.workdir"
PARENT = "mlflow.parentRunId"
PIPELINE = "rgsud.pipeline_run"  # of a stage's run: which pipeline run it belongs to, whatever its parent is
BEGAN = "rgsud.attempt_began"  # Unix milliseconds, of the last attempt
SECONDS, SECONDS_BEFORE = "cost/seconds", "rgsud.seconds_before"  # spent in all; of these for earlier pipeline runs
logger = logging.getLogger("rgsud")


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
        with locked(workdir):
            _create_database(local_root(workdir))
    return MlflowClient(tracking_uri(workdir))


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


def open_parent(client: MlflowClient, workdir: Path | str, opening: Opening) -> tuple[str, bool]:
    """Find or create the pipeline's parent run; False where somebody else opens and closes it."""
    with locked(workdir):
        return parent_of(
            client, find_experiment(client, workdir, opening.experiment), given_run(client, opening), opening
        )


def parents(client: MlflowClient, workdir: Path | str, run_key: str, experiment: Experiment | None = None) -> list[str]:
    """The ids of a pipeline run's parents, the one that counts first; others come of tasks that began at once."""
    return [run.info.run_id for run in tagged(client, find_experiment(client, workdir, experiment), RUN_KEY, run_key)]


def stage_runs(
    client: MlflowClient, workdir: Path | str, tag: str, value: str, experiment: Experiment | None = None
) -> list[Run]:
    """The stages' runs with this tag, the oldest first: PARENT gives a pipeline's, STAGE_KEY a result's."""
    runs = tagged(client, find_experiment(client, workdir, experiment), tag, value)
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


def find_experiment(client: MlflowClient, workdir: Path | str, experiment: Experiment | None = None) -> str:
    """The id of the experiment (default: that of the environment), which is created where it is absent."""
    wanted = experiment or Experiment.here()
    if wanted.id:
        return wanted.id
    name = wanted.name or EXPERIMENT
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


def given_run(client: MlflowClient, opening: Opening) -> Run | None:
    """The run that MLFLOW_RUN_ID named; None with a warning where there is no such run."""
    if not opening.given:
        return None
    try:
        return client.get_run(opening.given)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        address = shown(client.tracking_uri)
        logger.warning("MLFLOW_RUN_ID=%s is unknown to %s; a run of our own is used", opening.given, address)
        return None


def parent_of(client: MlflowClient, experiment: str, given: Run | None, opening: Opening) -> tuple[str, bool]:
    """As `open_parent`, for who holds the lock."""
    if given is not None:
        return given.data.tags.get(PARENT, given.info.run_id), False
    found = tagged(client, experiment, RUN_KEY, opening.run_key)
    if found:
        if found[0].info.status == "RUNNING" or (found[0].info.end_time or 0) <= opening.started:
            client.update_run(found[0].info.run_id, status="RUNNING")  # not where this is an old story
        return found[0].info.run_id, True
    tags = {RUN_KEY: quotable(opening.run_key), "mlflow.source.name": "rgsud"}
    created = client.create_run(experiment, opening.started, tags, run_name=opening.name)
    first, *_ = [*tagged(client, experiment, RUN_KEY, opening.run_key), created]  # the lock is this machine's
    return first.info.run_id, True


def tagged(client: MlflowClient, experiment: str, tag: str, value: str) -> list[Run]:
    """All runs of an experiment with this tag, the oldest first."""
    query = f"tags.`{tag}` = '{quotable(value)}'"
    return list(client.search_runs([experiment], query, order_by=["attributes.start_time ASC"]))


def quotable(value: str) -> str:
    """A tag's value as a search for it can name it."""
    return re.sub(r"[^\w.:/@ -]", "_", value)


@contextmanager
def locked(workdir: Path | str) -> Iterator[None]:
    """One process at a time opens runs in a workdir: neither databases nor parent runs come twice."""
    folder = local_root(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".mlflow.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
