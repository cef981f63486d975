"""The run of a stage and that of its pipeline: found again where they are, created where they are not.

Needs mlflow; imported lazily.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlflow.entities import Param, Run, RunTag
from mlflow.tracking import MlflowClient

from rgsud_lib.tracking.facts import Opening
from rgsud_lib.tracking.mlflow_store import (
    BEGAN,
    PARENT,
    PIPELINE,
    SECONDS,
    SECONDS_BEFORE,
    STAGE,
    STAGE_KEY,
    WORKDIR,
    find_experiment,
    given_run,
    locked,
    parent_of,
    quotable,
    tagged,
)

PARAMS = 100  # parameters, MLflow's limit for one log_batch


@dataclass(frozen=True)
class Opened:
    """A stage's run and its parent, and what is kept with the spool for who goes on delivering it.

    `owns_parent` is False where somebody else opens and closes the parent. `late`: a later attempt of the stage was
    here first, or all of this one was, so that how it ended is no news. Times are Unix milliseconds: when the run and
    when this attempt of the stage began; `spent`: seconds of earlier attempts.
    """

    child: str
    parent: str
    owns_parent: bool
    began: int
    attempt: int
    finalized_later: bool
    late: bool = False
    spent: float = 0.0


def open_runs(client: MlflowClient, workdir: Path | str, opening: Opening) -> Opened:
    """Find or create the pipeline's parent run and the stage's child run.

    A child of the same stage key and workdir that is not finished, or that this attempt or a later one finished, is
    continued.
    MLFLOW_RUN_ID, where set, names the run that an orchestrator made: a run that has a parent is this stage's own
    (Kubeflow's MLflow plugin), any other the parent.
    """
    with locked(workdir):
        experiment = find_experiment(client, workdir, opening.experiment)
        given = given_run(client, opening)
        old = _same_work(client, experiment, opening)
        parent, owned = parent_of(client, experiment, given, opening)
        pipeline = quotable(opening.run_key) if owned else parent
        opened = partial(
            Opened, parent=parent, owns_parent=owned, attempt=opening.started, finalized_later=opening.finalized_later
        )
        if old is not None:
            late = _began(old) > opening.started or old.info.status == "FINISHED"
            if not late:
                _reopen(client, old, pipeline, parent, opening)
            spent = old.data.metrics.get(SECONDS, 0.0)
            return opened(old.info.run_id, began=old.info.start_time, late=late, spent=spent)
        tags = {STAGE_KEY: opening.key, WORKDIR: opening.workdir, STAGE: opening.stage, PIPELINE: pipeline}
        tags[BEGAN] = str(opening.started)
        if given is not None and PARENT in given.data.tags:
            client.log_batch(given.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
            return opened(given.info.run_id, began=given.info.start_time)
        tags |= {PARENT: parent, "mlflow.source.name": "rgsud"}
        child = client.create_run(experiment, opening.started, tags, run_name=opening.stage)
        return opened(child.info.run_id, began=child.info.start_time)


def describe(client: MlflowClient, run_id: str, opening: Opening) -> None:
    """Parameters, tags and the whole configuration of a run; what it has already is left as it is."""
    known = client.get_run(run_id).data.params  # MLflow refuses another value for a logged parameter
    params = [Param(name, value) for name, value in opening.params.items() if name not in known]
    for start in range(0, len(params), PARAMS):
        client.log_batch(run_id, params=params[start : start + PARAMS])
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in opening.tags.items()])
    client.log_dict(run_id, opening.config, "config.json")


def _reopen(client: MlflowClient, old: Run, pipeline: str, parent: str, opening: Opening) -> None:
    if old.data.tags.get(PIPELINE) != pipeline:
        client.set_tag(old.info.run_id, SECONDS_BEFORE, str(old.data.metrics.get(SECONDS, 0.0)))
        client.set_tag(old.info.run_id, PIPELINE, pipeline)
    client.update_run(old.info.run_id, status="RUNNING")
    client.set_tag(old.info.run_id, PARENT, parent)  # it belongs to the pipeline run that finishes it
    client.set_tag(old.info.run_id, BEGAN, str(opening.started))


def _same_work(client: MlflowClient, experiment: str, opening: Opening) -> Run | None:
    runs = tagged(client, experiment, STAGE_KEY, opening.key)
    mine = [run for run in runs if run.data.tags.get(WORKDIR) == opening.workdir]
    return next((run for run in mine if run.info.status != "FINISHED" or _began(run) >= opening.started), None)


def _began(run: Run) -> int:
    return int(run.data.tags.get(BEGAN, 0))
