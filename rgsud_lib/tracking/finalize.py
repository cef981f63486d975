"""The last act of a pipeline run, whatever became of it: status, cost and lineage are written down.

The pipeline's MLflow run is found by its run key, or made: where all stages were taken from a cache,
nobody else did. Nothing here may turn a good run into a bad one, so what cannot be had is a note.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rgsud_lib import tracking
from rgsud_lib.config import parse_config
from rgsud_lib.errors import ConfigError, DataError
from rgsud_lib.stages import Place
from rgsud_lib.storage.remote import local_root
from rgsud_lib.tracking.address import first_line
from rgsud_lib.tracking.ending import Ending, Sources
from rgsud_lib.tracking.facts import Opening
from rgsud_lib.tracking.replay import replay_all
from rgsud_lib.tracking.run_report import report
from rgsud_lib.tracking.spool import FOLDER, Spool, SpoolFull
from rgsud_lib.tracking.spooled_run import keep

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger("rgsud")


def finalize(config: str, sources: Sources, workdir: Place, state: str, message: str = "") -> dict[str, Any]:
    """Close the pipeline's MLflow run; returns the run's report (see `run_report`).

    `config` is the JSON document as the pipeline got it, `state` KFP's: SUCCEEDED, FAILED or CANCELLED.
    """
    try:
        ending = Ending(parse_config(config), sources, workdir, state, message)
    except ConfigError as error:
        return report("FAILED", os.environ.get("KFP_RUN_ID", ""), message or str(error), [], ["nothing was started"])
    if not tracking.enabled():
        ending.notes.append("MLflow is off: run ids and seconds are not known")
        return ending.report()
    from rgsud_lib.tracking import mlflow_store

    try:
        _replay(ending)
        return ending.close(mlflow_store.connect(workdir), int(time.time() * 1000))
    except mlflow_store.failures() as error:
        ending.notes.append(f"MLflow cannot be used ({first_line(error)}): its runs may still say RUNNING")
        logger.warning("finalize: %s", ending.notes[-1])
        ending.forget_runs()
        _keep(ending)
        return ending.report()


def finalize_late(client: MlflowClient, kept: dict[str, Any], now: int) -> None:
    """Do now what `finalize` could not, from what it `kept` in a spool; `now` was then, in Unix milliseconds."""
    config, sources, workdir = parse_config(json.dumps(kept["config"])), tuple(kept["sources"]), kept["workdir"]
    ending = Ending(config, sources, workdir, kept["state"], kept["message"])
    ending.opening, ending.late = Opening.parse(kept["opening"]), True
    ending.close(client, now)


def _replay(ending: Ending) -> None:
    """Send what the stages could not, from wherever they left it."""
    try:
        left = replay_all(ending.workdir).left
        ending.notes.extend(f"MLflow has not got {name}: {reason}" for name, reason in left.items())
    except DataError as error:
        ending.notes.append(f"what stages kept for MLflow in {ending.workdir} could not be fetched: {error}")


def _keep(ending: Ending) -> None:
    """Leave what `finalize_late` needs."""
    try:
        spool = Spool.create(local_root(ending.workdir) / FOLDER, "finalize")
        spool.append(
            "finalize", opening=asdict(ending.opening), config=ending.opening.config, sources=ending.sources,
            workdir=str(ending.workdir), state=ending.state, message=ending.message,
        )  # fmt: skip
    except SpoolFull as error:
        ending.notes.append(str(error))
        return
    spool.release(delivered=False)
    keep(spool.folder, ending.workdir)
