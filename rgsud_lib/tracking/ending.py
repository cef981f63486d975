"""How a pipeline run ended: put together from its workdir and from the runs of its stages in MLflow."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rgsud_lib.config import Config
from rgsud_lib.errors import RgsudError
from rgsud_lib.stages import INPUTS, PARTS, STAGES, Place, prepare_inputs, recycle_inputs, stage_key
from rgsud_lib.tracking.facts import Opening
from rgsud_lib.tracking.leftovers import adopt_children, sealed_digest, unsaid_bundle
from rgsud_lib.tracking.mlflow_models import BUNDLE_DIGEST
from rgsud_lib.tracking.run_report import EARLIER, StageRecord, markdown, report, run_status

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Sources = tuple[str, str, str | None]  # rainy, clean, paired
# All that has a run of its own, in the pipeline's order: stages, their parts, and tasks that decide.
ORDER = ("new_data_check", "check", "prepare", "recycle", "reinforce", "score", "evaluate", "export", "gate")
DECISIONS = ("rgsud.decision", "rgsud.gate")  # tags in which the latter say what


class Ending:
    """What is known of the pipeline run: from the workdir and, once opened, from MLflow."""

    def __init__(self, config: Config, sources: Sources, workdir: Place, state: str, message: str) -> None:
        self.config, self.sources, self.workdir, self.state, self.message = config, sources, workdir, state, message
        self.opening, self.late = Opening.of("finalize", config, workdir, ""), False
        self.notes: list[str] = []
        self.forget_runs()

    def forget_runs(self) -> None:
        self._client: MlflowClient | None = None
        self._children: list[Run] = []
        self._unsaid: dict[str, str] = {}  # by run: the bundle of a stage that could not say that it was done

    def close(self, client: MlflowClient, now: int) -> dict[str, Any]:
        """Write the report into the pipeline's MLflow run and set its status where that is ours to set."""
        from rgsud_lib.tracking import mlflow_store
        from rgsud_lib.tracking.mlflow_runs import describe

        key, experiment = self.opening.run_key, self.opening.experiment
        parent, owned = mlflow_store.open_parent(client, self.workdir, self.opening)
        duplicates = adopt_children(client, self.workdir, key, parent, experiment) if owned else []
        self._client = client
        self._children = mlflow_store.stage_runs(client, self.workdir, mlflow_store.PARENT, parent, experiment)
        self._unsaid = {run.info.run_id: made for run in self._children if (made := self._made(run))}
        document = self.report()
        for run_id in [parent, *duplicates] if owned else []:  # before the report, which S3 may refuse
            client.set_terminated(run_id, document["status"], now)
        if not client.get_run(parent).data.params:
            describe(client, parent, self.opening)
        for run in self._children:
            if run.info.status != self._status(run):
                client.set_terminated(run.info.run_id, self._status(run), now)
        for run_id, digest in self._unsaid.items():
            client.set_tag(run_id, BUNDLE_DIGEST, digest)
        _write(client, parent, document, now)
        return document

    def report(self) -> dict[str, Any]:
        records: list[StageRecord] = []
        known: dict[str, str] = {}
        for stage in ORDER:
            own = [run for run in self._children if run.data.tags["rgsud.stage"] == stage]
            if own:
                records.append(self._ours(stage, own))
            elif stage in STAGES:
                skipped = any(record.decision == "skip" for record in records)
                records.append(StageRecord(stage) if skipped else self._taken(stage, known))
            if stage in STAGES and records[-1].bundle:
                known[STAGES[stage][0]] = records[-1].bundle
        status = run_status(self.state, records)
        return report(status, self.opening.run_key, self.message, records, self.notes)

    def _made(self, run: Run) -> str:
        if self.late and BUNDLE_DIGEST not in run.data.tags:  # what is there by now a later run may have made
            return ""
        try:
            return unsaid_bundle(run, self.workdir)
        except RgsudError as error:
            self.notes.append(f"whether {run.data.tags['rgsud.stage']} was done is not known: {error}")
            return ""

    def _status(self, run: Run) -> str:
        """A run's status; of one whose process ended without setting it, how that must have been."""
        if run.info.run_id in self._unsaid:
            return "FINISHED"
        if run.info.status != "RUNNING":
            return str(run.info.status)
        return "KILLED" if self.state.startswith("CANCEL") else "FAILED"

    def _ours(self, stage: str, runs: list[Run]) -> StageRecord:
        undone = [run for run in runs if self._status(run) != "FINISHED"]
        last = undone[-1] if stage in PARTS and undone else runs[-1]  # parts have a run each
        made = self._unsaid.get(last.info.run_id) or last.data.tags.get(BUNDLE_DIGEST, "")
        status = self._status(last)
        return StageRecord(
            stage,
            status=status,
            seconds=sum(_seconds(run) for run in runs),
            device=last.data.tags.get("rgsud.device", ""),
            gpus=int(last.data.tags.get("rgsud.gpus") or (last.data.tags.get("rgsud.device", "cpu") != "cpu")),
            run_id=last.info.run_id,
            bundle=made if status == "FINISHED" and stage not in PARTS else "",
            inputs={read.dataset.name: read.dataset.digest for read in last.inputs.dataset_inputs},
            decision=next((last.data.tags[tag] for tag in DECISIONS if tag in last.data.tags), ""),
        )

    def _taken(self, stage: str, known: dict[str, str]) -> StageRecord:
        """A stage that did not run: what it would have made may be there from an earlier run."""
        if self.late and self.state != "SUCCEEDED":
            return StageRecord(stage)
        try:
            inputs = self._inputs(stage, known)
            if not all(inputs.values()):
                return StageRecord(stage)
            key = stage_key(stage, self.config, inputs)
            run = self._made_by(key)
            digest = run.data.tags.get(BUNDLE_DIGEST, "") if run else sealed_digest(stage, key, self.workdir)
        except RgsudError as error:
            self.notes.append(f"whether there is an earlier result of {stage} is not known: {error}")
            return StageRecord(stage)
        if not digest:
            return StageRecord(stage)
        return StageRecord(stage, EARLIER, run_id=run.info.run_id if run else "", bundle=digest, inputs=inputs)

    def _inputs(self, stage: str, known: dict[str, str]) -> dict[str, str]:
        from rgsud_lib.data.prepare import source_digest

        if stage == "prepare":
            return prepare_inputs(self.config, source_digest(*self.sources), self.workdir)
        if stage == "recycle" and "dataset" in known:
            return recycle_inputs(self.config, known["dataset"], self.workdir)
        return {name: known.get(name, "") for name in INPUTS[stage]}

    def _made_by(self, key: str) -> Run | None:
        from rgsud_lib.tracking import mlflow_store

        if self._client is None:
            return None
        experiment = self.opening.experiment
        runs = mlflow_store.stage_runs(self._client, self.workdir, mlflow_store.STAGE_KEY, key, experiment)
        return next((run for run in runs if run.info.status == "FINISHED"), None)


def _seconds(run: Run) -> float:
    """What this pipeline run spent on a stage, over its attempts.

    Of a process that ended without a word, as long as it lasted at most.
    """
    from rgsud_lib.tracking import mlflow_store

    lasted = (run.info.end_time or int(time.time() * 1000)) - run.info.start_time
    spent = run.data.metrics.get(mlflow_store.SECONDS, lasted / 1000)
    return spent - float(run.data.tags.get(mlflow_store.SECONDS_BEFORE, 0.0))


def _write(client: MlflowClient, parent: str, document: dict[str, Any], now: int) -> None:
    from mlflow.entities import Metric, RunTag

    metrics = [Metric(name, value, now, 0) for name, value in document["cost"].items()]
    tags = {f"rgsud.{row['stage']}_run": row["run_id"] for row in document["stages"] if row["run_id"]}
    tags |= {f"rgsud.{row['stage']}_bundle": row["bundle"] for row in document["stages"] if row["bundle"]}
    client.log_batch(parent, metrics=metrics, tags=[RunTag(name, value) for name, value in tags.items()])
    client.log_text(parent, json.dumps(document, indent=1, sort_keys=True), "run_report.json")
    client.log_text(parent, markdown(document), "run_report.md")
