"""What a stage tells MLflow: one parent run a pipeline run, one child run a stage.

Tracking never stops training and never holds it up: what is logged goes into a spool on disk, from which a thread, a
later stage or `rgsud tracking replay` sends it, in order and without doubles.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rgsud_lib.config import Config
from rgsud_lib.errors import Preempted
from rgsud_lib.tracking.facts import parent_name, run_key
from rgsud_lib.tracking.stage_run import StageRun

__all__ = ["StageRun", "enabled", "parent_name", "run_key", "stage_run"]


def enabled() -> bool:
    """Whether runs are tracked: mlflow is installed and RGSUD_TRACKING is not "off"."""
    return os.environ.get("RGSUD_TRACKING", "").lower() != "off" and importlib.util.find_spec("mlflow") is not None


@contextmanager
def stage_run(stage: str, config: Config, workdir: Path | str, key: str) -> Iterator[StageRun]:
    """Open (or continue: same `key` and `workdir`) the stage's run; its status at exit tells how the stage ended.

    The null run where tracking is not `enabled`.
    """
    run = _open(stage, config, workdir, key) if enabled() else StageRun()
    try:
        yield run
    except (Preempted, KeyboardInterrupt):
        run.close("KILLED")
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


def _open(stage: str, config: Config, workdir: Path | str, key: str) -> StageRun:
    from rgsud_lib.tracking.spool import SpoolFull
    from rgsud_lib.tracking.spooled_run import SpooledRun

    try:
        return SpooledRun(stage, config, workdir, key)
    except SpoolFull as error:
        logging.getLogger("rgsud").warning("MLflow will not hear of this stage: %s", error)
        return StageRun()
