"""A stage's run in MLflow: each call adds a record to the spool, a thread carries the records to MLflow."""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rgsud_lib.config import Config
from rgsud_lib.errors import DataError
from rgsud_lib.storage.remote import local_root
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.tracking.facts import Opening
from rgsud_lib.tracking.remote_spools import send_away
from rgsud_lib.tracking.spool import FOLDER, Spool, SpoolFull
from rgsud_lib.tracking.stage_run import StageRun

ROWS = 1000  # in one record
logger = logging.getLogger("rgsud")


class SpooledRun(StageRun):
    """Costs the stage what a line in a file costs, whether MLflow is there, slow or away."""

    tracked = True

    def __init__(self, stage: str, config: Config, workdir: Path | str, key: str) -> None:
        from rgsud_lib.tracking.sender import Sender  # mlflow, which the thread must not be the first to import

        self._workdir = workdir
        self._spool = Spool.create(local_root(workdir) / FOLDER, stage)
        self._spool.append("open", opening=asdict(Opening.of(stage, config, workdir, key)))
        self._sender = Sender(self._spool, workdir)
        self._monitor = self._start_monitor()

    @property
    def run_id(self) -> str | None:
        opened = self._sender.delivery.opened
        return opened.child if opened else None

    def log_rows(self, rows: list[dict[str, Any]]) -> None:
        for start in range(0, len(rows), ROWS):
            self._add("rows", rows=[_numbers(row) for row in rows[start : start + ROWS]])

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self._add("metrics", rows=[_numbers({"step": 0, **metrics})])

    def log_image(self, path: Path, key: str, step: int) -> None:
        self._add("image", file=path, key=key, step=step)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        self._add("artifact", file=path, folder=folder)

    def log_model(self, folder: Path) -> None:
        self._add("model", file=folder)

    def log_input(self, name: str, digest: str, source: str, context: str) -> None:
        self._add("input", name=name, digest=digest, source=source, context=context)

    def set_tags(self, tags: dict[str, str]) -> None:
        self._add("tags", tags={name: str(value) for name, value in tags.items()})

    def flush(self) -> None:
        self._sender.flush()

    def close(self, status: str) -> None:
        """Send what is left, and the status of the run and, where it is ours, of its parent.

        What MLflow does not take stays on disk, or goes to the workdir's S3.
        """
        if self._monitor is not None:
            self._monitor.stop()
        self._add("close", status=status)
        delivered = self._sender.finish()
        self._spool.release(delivered)
        if not delivered:
            keep(self._spool.folder, self._workdir)

    def _add(self, op: str, file: Path | None = None, **fields: Any) -> None:
        try:
            self._spool.append(op, file, **fields)
        except SpoolFull as error:
            logger.warning("MLflow will lack a record of this stage: %s", error)
        self._sender.notify()

    def _start_monitor(self) -> Any:
        off = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() in ("false", "0")
        if off or importlib.util.find_spec("psutil") is None:
            return None
        from rgsud_lib.tracking.system_metrics import SystemMetrics

        return SystemMetrics(lambda values: self._add("system", values=values))


def keep(folder: Path, workdir: Path | str) -> None:
    """See to it that a spool that nobody holds any more outlives this machine's disk, and say where it is."""
    place = str(folder)
    if is_remote(workdir):
        try:
            place = send_away(folder, workdir)
        except DataError as error:
            logger.warning("what MLflow has not got could not be sent to %s either: %s", workdir, error)
    command = f"rgsud tracking replay --workdir {shlex.quote(str(workdir))}"
    logger.warning("MLflow has not got everything of this stage; it is kept in %s, `%s` sends it", place, command)


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """The step and all that is a number in a row."""
    numbers = {
        name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return {"step": int(row["step"]), **numbers}
