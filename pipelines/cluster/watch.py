"""Looking at runs: wait for one with a line for each change of a task, and tables of the recent ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from kfp_server_api import ApiException, V2beta1PipelineTaskDetail, V2beta1RecurringRun, V2beta1Run
from urllib3.exceptions import HTTPError

from rgsud_lib.task import StageFailure
from rgsud_pipelines.cluster.kfp_session import Client
from rgsud_pipelines.cluster.schedule import describe, schedules
from rgsud_pipelines.cluster.submit import LATEST, find_experiment

FINAL = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
POLL = 10.0  # seconds
PATIENCE = 30  # polls in a row that may fail: a server that is updated is away for some minutes
TIMEOUT = (10, 60)  # seconds to connect, to answer

logger = logging.getLogger("rgsud")


def wait(client: Client, run_id: str) -> V2beta1Run:
    """Log the changes of a run's tasks until it has succeeded.

    Raises StageFailure: exit code 1, it ended in another way; 130, Ctrl-C, which does not stop the run.
    """
    seen: dict[str, str] = {}
    try:
        while True:
            run = _poll(client, run_id)
            for task in _tasks(run):
                if task.state and seen.get(task.task_id) != task.state:
                    seen[task.task_id] = task.state
                    logger.info("%s  %s: %s", _took(run), task.display_name, task.state.lower())
            if run.state in FINAL:
                break
            time.sleep(POLL)
    except KeyboardInterrupt:
        link = client.run_link(run_id)
        raise StageFailure(f"no longer waiting; the run goes on: {link}", 130) from None
    if run.state != "SUCCEEDED":
        raise StageFailure(f"run {run.display_name!r} {run.state.lower()}{_reasons(run)}", 1)
    return run


def runs_table(client: Client, limit: int, experiment: str | None = None) -> str:
    """The newest runs: when, name, state, duration, id."""
    experiment_id = find_experiment(client, experiment) if experiment else None
    listed = client.list_runs(page_size=limit, sort_by="created_at desc", experiment_id=experiment_id).runs or []
    rows = [
        (f"{run.created_at:%Y-%m-%d %H:%M}", run.display_name, (run.state or "pending").lower(), _took(run), run.run_id)
        for run in listed
    ]
    return _table(("created (UTC)", "name", "state", "took", "run"), rows) if rows else "no runs yet"


def schedules_table(client: Client) -> str:
    """All schedules of the namespace: name, when and whether enabled, which version."""
    rows = [(item.display_name, describe(item), _version(client, item)) for item in schedules(client)]
    return _table(("schedule", "when", "version"), rows) if rows else "no schedules"


def _version(client: Client, item: V2beta1RecurringRun) -> str:
    pinned = item.pipeline_version_reference
    if pinned is None or not pinned.pipeline_version_id:
        return "inline" if pinned is None else LATEST
    try:
        return client.get_pipeline_version(pinned.pipeline_id, pinned.pipeline_version_id).display_name
    except ApiException as error:
        if error.status != 404:
            raise
        return f"{pinned.pipeline_version_id} (deleted)"


def _poll(client: Client, run_id: str) -> V2beta1Run:
    """The run as it is now; a server that is away is asked again for a while."""
    for remaining in reversed(range(PATIENCE)):
        try:
            return client.runs.run_service_get_run(run_id=run_id, _request_timeout=TIMEOUT)
        except (ApiException, HTTPError) as error:
            refused = isinstance(error, ApiException) and error.status < 500
            if refused or not remaining:
                logger.warning("no longer waiting; the run goes on: %s", client.run_link(run_id))
                raise
            logger.warning("the server does not answer; asking again in %g s", POLL)
            time.sleep(POLL)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _tasks(run: V2beta1Run) -> Iterator[V2beta1PipelineTaskDetail]:
    """The tasks a user knows; KFP lists its drivers and the whole graph beside them."""
    for task in (run.run_details and run.run_details.task_details) or []:
        name = task.display_name or "root"
        if name not in ("root", "executor") and not name.endswith("-driver"):
            yield task


def _reasons(run: V2beta1Run) -> str:
    failed = [task for task in _tasks(run) if task.state == "FAILED"]
    lines = [f"{task.display_name}: {task.error.message if task.error else 'failed'}" for task in failed]
    if run.error and run.error.message:
        lines.insert(0, run.error.message)
    return "".join(f"\n  {line}" for line in lines)


def _took(run: V2beta1Run) -> str:
    end = run.finished_at if run.state in FINAL and run.finished_at else datetime.now(UTC)
    return str(max(timedelta(), end - run.created_at)).partition(".")[0]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
