"""An MLflow tracking server whose artifacts lie in S3, as on a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import psutil
from ceph import S3Server, free_port, wait_for_http


class MlflowServer:
    """The server at `address`; runs in `database` (default: a file in `folder`), artifacts in the bucket `bucket`."""

    def __init__(self, folder: Path, s3: S3Server, database: str = "", bucket: str = "mlflow") -> None:
        self.folder, self.s3, self.bucket = folder, s3, bucket
        self.database = database or f"sqlite:///{folder}/mlflow.db"
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with the runs of before a `stop`, and wait for its answer."""
        environment = {**os.environ, **self.s3.environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        keys = {"aws_access_key_id": self.s3.access_key, "aws_secret_access_key": self.s3.secret_key}
        boto3.client("s3", endpoint_url=self.s3.endpoint, **keys).create_bucket(Bucket=self.bucket)
        options = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", "--no-serve-artifacts")
        stores = ("--backend-store-uri", self.database)
        artifacts = ("--default-artifact-root", f"s3://{self.bucket}/artifacts")
        with open(self.folder / "mlflow.out", "wb") as log:
            command = [sys.executable, "-m", "mlflow", "server", *options, *stores, *artifacts]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_for_http(f"{self.address}/health", self._process)

    def stop(self) -> None:
        """kill -9 it and its workers."""
        if not self.answers():
            return
        family = [*psutil.Process(self._process.pid).children(recursive=True), self._process]
        for process in family:
            process.kill()
        self._process.wait()

    def answers(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def environment(self) -> dict[str, str]:
        """How stages find the server and, since they write artifacts themselves, its S3 server."""
        return {**self.s3.environment(), "MLFLOW_TRACKING_URI": self.address}

    def runs(self) -> list[Any]:
        """All runs of the experiment rgsud."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.address)
        experiment = client.get_experiment_by_name("rgsud")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []
