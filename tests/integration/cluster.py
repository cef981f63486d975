"""Pipelines run as on a cluster: KFP starts a container for each task, and all that they share is S3 and MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from containers import ROOT, DockerDaemon
from mlflow_process import MlflowServer

from rgsud_lib.bundle import Bundle
from rgsud_lib.config import load_config
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import list_files
from rgsud_lib.storage.remote import find

COMPILED = ROOT / "pipelines" / "compiled"
SETTINGS = (
    "warm_start.steps=6", "warm_start.batch=2", "training.steps=8", "training.batch=2", "training.checkpoint_every=4",
    "training.log_every=1", "training.validate_every=4", "training.validation_images=1", "critic.steps=12",
    "critic.crop=48", "reward.round_every=2", "reward.budget=0.4", "reinforcement.steps=8", "evaluation.strips=1",
)  # fmt: skip


class Outcome(NamedTuple):
    """How a pipeline run ended for who started it."""

    code: int
    log: str
    seconds: float


class Cluster:
    """Containers, S3 and MLflow; the bucket holds the photographs under data/, all that is made under work/."""

    def __init__(self, daemon: DockerDaemon, mlflow: MlflowServer, bucket: str, folder: Path) -> None:
        self.daemon, self.mlflow, self.folder = daemon, mlflow, folder
        self.data, self.work = f"s3://{bucket}/data", f"s3://{bucket}/work"

    def run(self, run_id: str, pipeline: Path, *settings: str, **environment: str) -> Outcome:
        """Run a compiled pipeline as KFP run `run_id`; what is given as `environment` the stages see."""
        config = load_config("demo", [*SETTINGS, *settings])
        sources = {name: f"{self.data}/{name}" for name in ("rainy", "clean", "paired")}
        job = {
            "pipeline": str(pipeline),
            "arguments": {**sources, "workdir": self.work, "config": config.model_dump_json()},
            "environment": {**self.mlflow.environment(), "KFP_RUN_ID": run_id, **environment},
            "labels": {"run": run_id},
            "root": str(self.folder / run_id),
        }
        file = self.folder / f"{run_id}.json"
        file.write_text(json.dumps(job))
        start = time.monotonic()
        command = [sys.executable, str(Path(__file__).with_name("run_compiled.py")), str(file)]
        host = {**os.environ, "DOCKER_HOST": self.daemon.address}
        done = subprocess.run(command, env=host, capture_output=True, text=True)
        return Outcome(done.returncode, done.stdout + done.stderr, time.monotonic() - start)

    def containers(self, run_id: str, component: str = "") -> list[Any]:
        """A run's containers, ended or not; of one component, or of all."""
        found = self.daemon.client.containers.list(all=True, filters={"label": f"run={run_id}"})
        return [container for container in found if component in ("", component_of(container))]

    def exit_codes(self, run_id: str) -> dict[str, int]:
        """Of a run's containers, the highest by component."""
        codes: dict[str, int] = {}
        for container in self.containers(run_id):
            name = component_of(container)
            codes[name] = max(codes.get(name, 0), container.attrs["State"]["ExitCode"])
        return codes

    def bundles(self) -> dict[str, Bundle]:
        """The finished stages in S3, by the name of their folder."""
        markers = [file.name for file in list_files(self.work) if file.name.endswith("/bundle.json")]
        folders = [name.removesuffix("/bundle.json") for name in markers if name.startswith("stages/")]
        return {Path(name).name: found for name in folders if (found := find(f"{self.work}/{name}"))}

    def parent(self, run_id: str) -> Any:
        """The MLflow run of a pipeline run."""
        (found,) = [run for run in self.mlflow.runs() if run.data.tags.get("rgsud.run_key") == run_id]
        return found

    def report(self, run_id: str) -> dict[str, Any]:
        """What the exit handler wrote about a pipeline run."""
        return json.loads(transfer.read(f"{self.parent(run_id).info.artifact_uri}/run_report.json"))

    def children(self, run_id: str) -> dict[str, Any]:
        """The MLflow runs of its stages, by stage."""
        parent = self.parent(run_id).info.run_id
        mine = [run for run in self.mlflow.runs() if run.data.tags.get("mlflow.parentRunId") == parent]
        return {run.data.tags["rgsud.stage"]: run for run in mine}


def component_of(container: Any) -> str:
    """The component whose function a container runs; its command where it is none of ours."""
    command, flag = container.attrs["Config"]["Cmd"], "--function_to_execute"
    return command[command.index(flag) + 1] if flag in command else " ".join(command)
