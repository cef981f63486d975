"""Carries a spool's records to MLflow, in order; a record that is delivered twice changes nothing.

Metrics are told apart by their time and step, pictures by key and step, files by their place. So a delivery may be
killed at any moment and done again by another process. Needs mlflow; imported lazily.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException

from rgsud_lib.errors import RgsudError
from rgsud_lib.tracking import mlflow_models, mlflow_store
from rgsud_lib.tracking.address import first_line, shown
from rgsud_lib.tracking.curve_names import curve_name
from rgsud_lib.tracking.facts import Opening
from rgsud_lib.tracking.mlflow_pictures import log_picture, pictures
from rgsud_lib.tracking.mlflow_runs import Opened, describe, open_runs
from rgsud_lib.tracking.spool import Record, Spool

BATCH = 1000  # metrics, MLflow's limit for one log_batch
SYSTEM = "system/"
MERGED = ("rows", "system")  # neighbours of these go together
ALWAYS = ("open", "rows", "system", "image")  # what an attempt has to say even if a later one was here first
logger = logging.getLogger("rgsud")


class ForeignSpool(RgsudError):
    """A spool's runs were opened on another server than the present one."""


class Delivery:
    """Delivers one spool; raises what `mlflow_store.failures()` names where MLflow cannot take it now."""

    def __init__(self, spool: Spool, workdir: Path | str) -> None:
        self.spool, self.workdir, self.opened = spool, workdir, None
        self._failures = mlflow_store.failures()
        self._client: Any = None
        self._last_step: dict[str, int] = {}
        self._pictures: set[tuple[str, int]] = set()
        self._operations = {
            "open": self._open, "rows": self._rows, "system": self._rows, "metrics": self._metrics,
            "image": self._image, "artifact": self._artifact, "model": self._model, "input": self._input,
            "tags": self._tags, "close": self._close, "finalize": self._finalize,
        }  # fmt: skip

    def deliver(self) -> None:
        """Send all that is pending. Raises ForeignSpool where this server does not know the spool's runs."""
        self._client = self._client or mlflow_store.connect(self.workdir)
        if self.opened is None and self.spool.runs is not None:
            self._return_to(Opened(**self.spool.runs))
        while records := self.spool.pending():
            for op, group in groupby(records, key=lambda record: record.op):
                for batch in [list(group)] if op in MERGED else [[record] for record in group]:
                    self._attempt(op, batch)
                    self.spool.advance(batch[-1])

    def _attempt(self, op: str, batch: list[Record]) -> None:
        """Carry out records; what MLflow will never take is left out with a warning, for the sake of the rest."""
        if self.opened and self.opened.late and op not in ALWAYS:
            return
        if "file" in batch[0].fields and not self.spool.path(batch[0]).exists():
            logger.warning("%s is gone and is left out", self.spool.path(batch[0]))
            return
        try:
            self._operations[op](*batch)
        except self._failures as error:
            if not mlflow_store.is_final(error) or self.opened is None:
                raise
            if len(batch) == 1:
                logger.warning("MLflow refused a record, which is left out: %s", first_line(error))
            else:
                for record in batch:
                    self._attempt(op, [record])

    def _open(self, record: Record) -> None:
        opening = Opening.parse(record.fields["opening"])
        if self.opened is None:
            self.opened = open_runs(self._client, self.workdir, opening)
            self.spool.remember(asdict(self.opened))
            self._read_progress()
        for run_id in (self.opened.child, self.opened.parent):
            describe(self._client, run_id, opening)

    def _return_to(self, opened: Opened) -> None:
        try:
            self._client.get_run(opened.child)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ForeignSpool(
                f"{shown(self._client.tracking_uri)} does not know run {opened.child}, which {self.spool.folder} "
                "continues; set MLFLOW_TRACKING_URI to the server that has it, or delete that folder"
            ) from error
        self.opened = opened
        self._read_progress()

    def _read_progress(self) -> None:
        run_id = self.opened.child
        for name in self._client.get_run(run_id).data.metrics:
            if not name.startswith(SYSTEM):
                history = self._client.get_metric_history(run_id, name)
                self._last_step[name] = max(point.step for point in history)
        self._pictures = pictures(self._client, run_id)

    def _rows(self, *records: Record) -> None:
        metrics = [metric for record in records for metric in self._points(record)]
        fresh = [point for point in metrics if point.step > self._last_step.get(point.key, -1)]
        for start in range(0, len(fresh), BATCH):
            batch = fresh[start : start + BATCH]
            self._client.log_batch(self.opened.child, metrics=batch)
            for point in batch:
                if not point.key.startswith(SYSTEM):
                    self._last_step[point.key] = max(point.step, self._last_step.get(point.key, -1))

    def _points(self, record: Record) -> list[Metric]:
        if record.op == "system":  # their steps are seconds since the run began
            step = max(0, (record.time - self.opened.began) // 1000)
            return [Metric(SYSTEM + name, value, record.time, step) for name, value in record.fields["values"].items()]
        rows = record.fields["rows"]
        return [
            Metric(curve_name(name), value, record.time, row["step"])
            for row in rows
            for name, value in row.items()
            if name != "step"
        ]

    def _metrics(self, record: Record) -> None:
        self._rows(record)
        self._client.log_batch(self.opened.parent, metrics=self._points(record))

    def _image(self, record: Record) -> None:
        key, step = record.fields["key"], record.fields["step"]
        if (key, step) not in self._pictures:
            log_picture(self._client, self.opened.child, self.spool.path(record), key, step, record.time)
            self._pictures.add((key, step))

    def _artifact(self, record: Record) -> None:
        self._client.log_artifact(self.opened.child, str(self.spool.path(record)), record.fields["folder"])

    def _model(self, record: Record) -> None:
        mlflow_models.log_model(self._client, self.opened.child, self.spool.path(record))

    def _input(self, record: Record) -> None:
        name, digest, source, context = (record.fields[key] for key in ("name", "digest", "source", "context"))
        dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": source}))
        read = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        self._client.log_inputs(self.opened.child, datasets=[read])
        if name == "dataset":
            self._client.set_tag(self.opened.child, "rgsud.dataset_digest", digest)

    def _tags(self, record: Record) -> None:
        tags = [RunTag(name, value) for name, value in record.fields["tags"].items()]
        self._client.log_batch(self.opened.child, tags=tags)

    def _close(self, record: Record) -> None:
        opened, status = self.opened, record.fields["status"]
        spent = opened.spent + (record.time - opened.attempt) / 1000
        self._client.log_batch(opened.child, metrics=[Metric(mlflow_store.SECONDS, spent, record.time, 0)])
        self._client.set_terminated(opened.child, status, record.time)
        if opened.owns_parent and (status != "FINISHED" or not opened.finalized_later):
            self._client.set_terminated(opened.parent, status, record.time)

    def _finalize(self, record: Record) -> None:
        from rgsud_lib.tracking.finalize import finalize_late

        finalize_late(self._client, record.fields, record.time)
