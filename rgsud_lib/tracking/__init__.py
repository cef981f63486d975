"""What a stage tells MLflow: one parent run a pipeline run, one child run a stage.

Tracking never stops training: what cannot be sent is kept in order, a warning says so, and the next
call tries again. The stage's own log.jsonl is the record; sending it twice changes nothing.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgsud_lib import __version__
from rgsud_lib.config import Config, digest_of
from rgsud_lib.errors import Preempted
from rgsud_lib.storage.listing import canonical
from rgsud_lib.task import LAUNCHER
from rgsud_lib.tracking.address import shown
from rgsud_lib.tracking.mlflow_models import REFUSED

if TYPE_CHECKING:
    import numpy as np
    from mlflow.tracking import MlflowClient

BATCH = 1000  # metrics, MLflow's limit for one log_batch
PARAMS = 100  # parameters, likewise
PARAM_LENGTH = 6000
# How MLflow names a slider's pictures.
IMAGE_FILE = re.compile(r"(?P<key>.+)\+step\+(?P<step>\d+)\+timestamp\+.+compressed\.webp")
logger = logging.getLogger("rgsud")


class StageRun:
    """The stage's MLflow run; `StageRun()` is the null run, whose methods do nothing."""

    run_id: str | None = None

    def log_rows(self, rows: list[dict[str, Any]]) -> None:
        """Curves: each row has an int "step"; its other numbers are logged under their names.

        A metric's values at or before its last step in MLflow are skipped, so a resumed stage may send its
        whole log again.
        """

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """The stage's final numbers, shown by its run and by the pipeline's."""

    def log_image(self, image: np.ndarray, key: str, step: int) -> None:
        """A uint8 [H, W, 3] picture on the step slider of `key`; the same key and step are kept once."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy the file (or folder) `path` to the run's artifacts."""

    def log_model(self, folder: Path) -> None:
        """Make the MLflow model in `folder` a LoggedModel of the run; its id becomes the tag `rgsud.model_id`."""

    def log_input(self, name: str, digest: str, source: str, context: str) -> None:
        """Record what the stage read; the digest of the input named "dataset" also becomes a tag."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """Tags of the stage's run."""


@contextmanager
def stage_run(stage: str, config: Config, workdir: Path | str, key: str) -> Iterator[StageRun]:
    """Open (or continue: same `key` and `workdir`) the stage's run; its status at exit tells how the stage ended.

    A null run where mlflow is not installed or RGSUD_TRACKING=off.
    """
    if os.environ.get("RGSUD_TRACKING", "").lower() == "off" or importlib.util.find_spec("mlflow") is None:
        yield StageRun()
        return
    run = _MlflowRun(stage, config, workdir, key)
    try:
        yield run
    except (Preempted, KeyboardInterrupt):
        run.close("KILLED")
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


def run_key(config: Config, workdir: Path | str) -> str:
    """What all stages of one pipeline run share: RGSUD_RUN_KEY, KFP_RUN_ID, or the workdir with the configuration."""
    given = os.environ.get("RGSUD_RUN_KEY") or os.environ.get("KFP_RUN_ID")
    return given or digest_of({"workdir": canonical(workdir), "config": config.digest()})


def parent_name(config: Config) -> str:
    return f"{config.preset} {config.digest()[:8]}"


def finalized_later() -> bool:
    """Whether this process is a task of a pipeline, whose last task (`finalize`) closes the parent run."""
    return bool(os.environ.get("KFP_RUN_ID") or os.environ.get(LAUNCHER))


class _MlflowRun(StageRun):
    """Every call becomes an operation in a queue that is sent in order; sending one twice is harmless."""

    def __init__(self, stage: str, config: Config, workdir: Path | str, key: str) -> None:
        from rgsud_lib.tracking import mlflow_store

        self._store = mlflow_store
        self._failures = mlflow_store.failures()
        self._queue: deque[Callable[[], None]] = deque()
        self._retry_at = 0.0
        self._began, self._spent_before = time.time(), 0.0
        self._last_step: dict[str, int] = {}
        self._images: set[tuple[str, int]] = set()
        self._monitor: Any = None
        self._model: str | None = None
        self._send(partial(self._open, stage, config, workdir, key))

    def log_rows(self, rows: list[dict[str, Any]]) -> None:
        now = int(time.time() * 1000)
        self._send(partial(self._log_rows, [dict(row) for row in rows], now))

    def log_metrics(self, metrics: dict[str, float]) -> None:
        row, now = {"step": 0, **metrics}, int(time.time() * 1000)
        self._send(partial(self._log_rows, [row], now))
        self._send(lambda: self._log_batch(self._ids.parent, _metrics([row], now)))

    def log_image(self, image: np.ndarray, key: str, step: int) -> None:
        self._send(partial(self._log_image, image, key, step))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        self._send(lambda: self._client.log_artifact(self.run_id, str(path), folder))

    def log_model(self, folder: Path) -> None:
        self._send(partial(self._log_model, folder))

    def log_input(self, name: str, digest: str, source: str, context: str) -> None:
        self._send(partial(self._log_input, name, digest, source, context))

    def set_tags(self, tags: dict[str, str]) -> None:
        self._send(partial(self._set_tags, dict(tags)))

    def close(self, status: str) -> None:
        """Send what is left, the seconds spent, and the status of the run and, where it is ours, of its parent."""
        if self._monitor is not None:
            self._monitor.finish()
        self._retry_at = 0.0
        self._send(partial(self._close, status, time.time()))
        if self._queue:
            logger.warning("MLflow did not get %d of this stage's records; its log.jsonl has them", len(self._queue))

    def _send(self, operation: Callable[[], None]) -> None:
        self._queue.append(operation)
        start = time.monotonic()
        if start < self._retry_at:
            return
        try:
            while self._queue:
                self._deliver(self._queue[0])
                self._queue.popleft()
        except self._failures as error:
            now = time.monotonic()
            self._retry_at = now + 10 * (now - start)  # a server that hangs may take a tenth of the time at most
            logger.warning("MLflow cannot be written (%s); training goes on and this is sent later", first_line(error))

    def _deliver(self, operation: Callable[[], None]) -> None:
        """Run one operation; what MLflow will never take is left out with a warning, for the sake of the rest."""
        try:
            operation()
        except self._failures as error:
            if not self._store.is_final(error):
                raise
            logger.warning("MLflow refused a record, which is left out: %s", first_line(error))

    def _open(self, stage: str, config: Config, workdir: Path | str, key: str) -> None:
        self._client = self._store.connect(workdir)
        self._ids = self._store.open_runs(
            self._client, workdir, run_key(config, workdir), stage, key, parent_name(config)
        )
        for run_id in filter(None, (self._ids.child, self._ids.parent)):
            describe(self._client, run_id, config)
        self.run_id = self._ids.child
        if self._ids.resumed:
            self._read_progress()
        self._start_monitor()

    def _read_progress(self) -> None:
        metrics = self._client.get_run(self.run_id).data.metrics
        self._spent_before = metrics.get(self._store.SECONDS, 0.0)
        for name in metrics:
            if not name.startswith("system/"):
                history = self._client.get_metric_history(self.run_id, name)
                self._last_step[name] = max(point.step for point in history)
        for file in self._client.list_artifacts(self.run_id, "images"):
            found = IMAGE_FILE.fullmatch(Path(file.path).name)
            if found:
                self._images.add((found["key"], int(found["step"])))

    def _log_rows(self, rows: list[dict[str, Any]], timestamp: int) -> None:
        fresh = [point for point in _metrics(rows, timestamp) if point.step > self._last_step.get(point.key, -1)]
        for start in range(0, len(fresh), BATCH):
            batch = fresh[start : start + BATCH]
            self._log_batch(self.run_id, batch)
            for point in batch:
                self._last_step[point.key] = max(point.step, self._last_step.get(point.key, -1))

    def _log_batch(self, run_id: str | None, metrics: list[Any]) -> None:
        if run_id is not None:
            self._client.log_batch(run_id, metrics=metrics)

    def _log_image(self, image: np.ndarray, key: str, step: int) -> None:
        name = (key.replace("/", "~"), step)  # as MLflow writes the key in its file names
        if name not in self._images:
            self._client.log_image(self.run_id, image, key=key, step=step)
            self._images.add(name)

    def _log_model(self, folder: Path) -> None:
        from rgsud_lib.tracking import mlflow_models

        self._model = self._model or mlflow_models.create_model(self._client, self.run_id, folder)
        mlflow_models.fill_model(self._client, self.run_id, self._model, folder)

    def _log_input(self, name: str, digest: str, source: str, context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": source}))
        read = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        self._client.log_inputs(self.run_id, datasets=[read])
        if name == "dataset":
            self._set_tags({"rgsud.dataset_digest": digest})

    def _set_tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def _start_monitor(self) -> None:
        if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() in ("false", "0"):
            return
        if importlib.util.find_spec("psutil") is None:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        uri = self._client.tracking_uri
        self._monitor = SystemMetricsMonitor(self.run_id, resume_logging=self._ids.resumed, tracking_uri=uri)
        self._monitor.start()

    def _close(self, status: str, now: float) -> None:
        spent = self._spent_before + now - self._began
        self._log_batch(self.run_id, _metrics([{"step": 0, self._store.SECONDS: spent}], int(now * 1000)))
        self._client.set_terminated(self.run_id, status)
        if self._ids.owns_parent and (status != "FINISHED" or not finalized_later()):
            self._client.set_terminated(self._ids.parent, status)


def describe(client: MlflowClient, run_id: str, config: Config) -> None:
    """Parameters, tags and the whole configuration of a run; what it has already is left as it is."""
    from mlflow.entities import Param, RunTag

    known = client.get_run(run_id).data.params  # MLflow refuses another value for a logged parameter
    flat = {name: str(value)[:PARAM_LENGTH] for name, value in config.flat().items() if name not in known}
    params = [Param(name, value) for name, value in flat.items()]
    for start in range(0, len(params), PARAMS):
        client.log_batch(run_id, params=params[start : start + PARAMS])
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in _facts(config).items()])
    client.log_dict(run_id, json.loads(config.model_dump_json()), "config.json")


def _metrics(rows: Iterable[dict[str, Any]], timestamp: int) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(REFUSED.sub("_", name), float(value), timestamp, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]


def _facts(config: Config) -> dict[str, str]:
    facts = {
        "rgsud.code_version": __version__,
        "rgsud.config_digest": config.digest(),
        "rgsud.preset": config.preset,
        "rgsud.seed": str(config.training.seed),
        "rgsud.device": _device(config),
        "rgsud.gpus": os.environ.get("RGSUD_GPUS", ""),  # reserved for the task, see placement.py
    }
    checkout = Path(__file__).parents[2]
    if os.environ.get("RGSUD_COMMIT"):  # the image says of which it was made
        facts["mlflow.source.git.commit"] = os.environ["RGSUD_COMMIT"]
    elif (checkout / ".git").exists():
        command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        git = subprocess.run(command, capture_output=True, text=True, check=False)
        facts["mlflow.source.git.commit"] = git.stdout.strip() or "unknown"
    return facts


def _device(config: Config) -> str:
    torch = sys.modules.get("torch")  # a stage that has not imported it runs on the CPU
    if config.training.device == "cpu" or torch is None or not torch.cuda.is_available():
        return "cpu"
    return str(torch.cuda.get_device_name())


def first_line(error: Exception) -> str:
    """What an error is, without the passwords of addresses that it names."""
    lines = shown(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
