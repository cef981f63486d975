"""Curves and artifacts over the loss of a real MLflow server, with its runs in PostgreSQL and its artifacts in S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ceph import S3Server
from cluster import SETTINGS
from mlflow_process import MlflowServer
from PIL import Image
from postgres import PostgresServer

from rgsud_lib import tracking
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.demo import make_demo_data
from rgsud_lib.storage.listing import list_files

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

SIDE = 200  # pixels: the judge's model needs some blocks of 96


@pytest.fixture(scope="module")
def server(s3_server: S3Server, postgres: PostgresServer, tmp_path_factory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("mlflow"), s3_server, postgres.address, bucket="tracking")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def environment(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RGSUD_TRACKING", "KFP_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a server that has just started on a busy machine


@pytest.fixture
def up(server: MlflowServer) -> Iterator[None]:
    """The server runs when the test ends, whatever it did."""
    yield
    if not server.answers():
        server.start()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "grid.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("demo")


def stage_of(server: MlflowServer, run_key: str, stage: str) -> Any:
    """The one run of a stage in a pipeline run."""
    mine = [run for run in server.runs() if run.data.tags.get("rgsud.pipeline_run") == run_key]
    (found,) = [run for run in mine if run.data.tags["rgsud.stage"] == stage]
    return found


def curve(server: MlflowServer, run: Any, name: str = "loss/derain") -> list[int]:
    from mlflow.tracking import MlflowClient

    return sorted(point.step for point in MlflowClient(server.address).get_metric_history(run.info.run_id, name))


def row(step: int) -> dict[str, Any]:
    return {"step": step, "loss/derain": 1 / step}


def test_a_server_that_is_killed_and_comes_back_has_complete_curves(
    server, up, config, tmp_path, picture, monkeypatch
) -> None:
    monkeypatch.setenv("RGSUD_RUN_KEY", "killed")
    with tracking.stage_run("recycle", config, tmp_path, "k") as run:
        for step in range(1, 101):
            run.log_rows([row(step)])
            if step in (30, 60):
                run.flush()
            if step == 30:
                server.stop()
            if step in (20, 50, 80):
                run.log_image(picture, "grid", step)
            if step == 70:
                server.start()
    found = stage_of(server, "killed", "recycle")
    assert curve(server, found) == list(range(1, 101)) and found.info.status == "FINISHED"
    names = [file.name for file in list_files(f"{found.info.artifact_uri}/images")]
    assert len(names) == 6 and {name.split("+")[2] for name in names} == {"20", "50", "80"}
    assert not list((tmp_path / "mlflow-spool").iterdir())


REPLAY = "from rgsud_pipelines.cli import main; main()"


def replay(workdir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REPLAY, "tracking", "replay", "--workdir", str(workdir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_server_that_was_never_there_gets_all_by_the_command_even_if_that_is_killed(
    server, up, config, tmp_path, picture, monkeypatch
) -> None:
    monkeypatch.setenv("RGSUD_RUN_KEY", "never")
    server.stop()
    with tracking.stage_run("recycle", config, tmp_path, "k") as run:
        for step in range(1, 201):
            run.log_rows([row(step)])
            if step % 5 == 0:  # between the rows, so that there are many requests to be killed at
                run.log_image(picture, "grid", step)
    out, _ = (refused := replay(tmp_path)).communicate()
    assert refused.returncode == 1 and "kept" in out
    server.start()
    for _ in range(2):
        killed = replay(tmp_path)
        wait_for(lambda: progress(tmp_path) > 0, killed)
        before = progress(tmp_path)
        wait_for(lambda before=before: progress(tmp_path) > before, killed)
        killed.kill()
        killed.communicate()
    out, err = (last := replay(tmp_path)).communicate()
    assert last.returncode == 0 and "sent" in out, err
    found = stage_of(server, "never", "recycle")
    assert curve(server, found) == list(range(1, 201)) and found.info.status == "FINISHED"
    names = [file.name for file in list_files(f"{found.info.artifact_uri}/images")]
    assert len(names) == 80
    assert "nothing is waiting" in replay(tmp_path).communicate()[0]


def progress(workdir: Path) -> int:
    """How far the records were delivered."""
    positions = list((workdir / "mlflow-spool").glob("*/position.json"))
    return json.loads(positions[0].read_text())["offset"] if positions else 0


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_a_whole_pipeline_over_the_loss_of_its_server(server, up, tmp_path) -> None:
    """Killed in stage 1 and started again before stage 2."""
    data = tmp_path / "data"
    make_demo_data(data)
    folders = {name: data / name for name in ("rainy", "clean", "paired")}
    for name, kept in (("rainy", 4), ("clean", 4), ("paired/rain", 1), ("paired/clean", 1)):
        for number, file in enumerate(sorted((data / name).iterdir())):
            if number < kept:
                Image.open(file).crop((0, 0, SIDE, SIDE)).save(file)
            else:
                file.unlink()
    settings = [part for setting in (*SETTINGS, "training.threads=1") for part in ("--set", setting)]
    sources = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
    command = [sys.executable, "-c", REPLAY, "run", *sources, *settings, "--workdir", str(tmp_path / "runs")]
    environment = {**os.environ, "RGSUD_RUN_KEY": "whole"}
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: rows_of(tmp_path / "runs", "recycle") >= 5, run)
    server.stop()
    wait_for(lambda: rows_of(tmp_path / "runs", "recycle") >= 12, run)
    server.start()
    _, err = run.communicate()
    assert run.returncode == 0, err
    for stage in ("recycle", "reinforce"):
        found = stage_of(server, "whole", stage)
        (log,) = (tmp_path / "runs" / "stages").glob(f"{stage}-*/log.jsonl")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert curve(server, found) == [row["step"] for row in rows if "loss/derain" in row]
        assert found.info.status == "FINISHED"
        assert {"pool.html", "config.json"} <= {file.name for file in list_files(found.info.artifact_uri)}
    (parent,) = [each for each in server.runs() if each.data.tags.get("rgsud.run_key") == "whole"]
    assert parent.info.status == "FINISHED" and parent.data.metrics["cost/recycle_seconds"] > 0
    assert not list((tmp_path / "runs" / "mlflow-spool").iterdir())


def rows_of(workdir: Path, stage: str) -> int:
    return sum(len(log.read_bytes().splitlines()) for log in (workdir / "stages").glob(f"{stage}-*/log.jsonl"))
