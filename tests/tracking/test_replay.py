"""What a stage could not send is sent later: in order, whole, once, whoever does it and however often it is killed."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rgsud_lib import stages, tracking
from rgsud_lib.config import Config
from rgsud_lib.errors import Preempted
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import list_objects
from rgsud_lib.tracking import remote_spools
from rgsud_lib.tracking.finalize import finalize
from rgsud_lib.tracking.replay import replay
from rgsud_lib.tracking.spool import left_behind
from rgsud_lib.tracking.spooled_run import SpooledRun

pytest.importorskip("mlflow")
from mlflow.tracking import MlflowClient

AWAY = "http://127.0.0.1:9"
Contents = dict[str, Any]


class Killed(BaseException):
    """Stands for kill -9: nothing in the code under test may catch it."""


@pytest.fixture
def uri(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server, which is away until `back`."""
    address = f"sqlite:///{workdir / 'mlflow.db'}"
    MlflowClient(address).create_experiment("rgsud", (workdir / "mlartifacts").as_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    return address


def rows(first: int, last: int) -> list[dict[str, Any]]:
    return [{"step": step, "phase": "recycle", "loss/derain": step / 10} for step in range(first, last + 1)]


def attempt(
    config: Config, workdir: Path | str, picture: Path, last: int, error: type[Exception] | None = None
) -> None:
    with suppress(Preempted), tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_input("dataset", "d1g3st", "/data", "recycle")
        run.log_rows(rows(1, last))
        run.log_image(picture, "grid", last)
        run.log_artifact(picture)
        run.log_metrics({"psnr_rgb": 30.0 + last})
        if error is not None:
            raise error("saved")


def contents(uri: str) -> dict[str, Contents]:
    """All that is in the store, by the runs' names; no name is there twice."""
    store = MlflowClient(uri)
    experiment = store.get_experiment_by_name("rgsud")
    runs = store.search_runs([experiment.experiment_id])
    found = {}
    for run in runs:
        assert run.info.run_name not in found
        run_id = run.info.run_id
        curve = store.get_metric_history(run_id, "loss/derain")
        found[run.info.run_name] = {
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "parent": run.data.tags.get("mlflow.parentRunId"),
            "curve": [(point.step, point.value) for point in sorted(curve, key=lambda point: point.step)],
            "metrics": sorted(run.data.metrics),
            "inputs": len(run.inputs.dataset_inputs),
            "files": sorted(file.path for file in store.list_artifacts(run_id)),
            "pictures": len(store.list_artifacts(run_id, "images")),
        }
    return found


def test_a_server_that_was_never_there_gets_all_of_it_once_it_is(config, workdir, picture, uri, monkeypatch) -> None:
    attempt(config, workdir, picture, 4, Preempted)
    attempt(config, workdir, picture, 9)
    assert len(left_behind(workdir)) == 2
    spools = [json.loads((path / "records.jsonl").read_text().splitlines()[0]) for path in left_behind(workdir)]
    last = (left_behind(workdir)[-1] / "records.jsonl").read_text().splitlines()[-1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    copies = workdir.parent / "copies"
    shutil.copytree(workdir / "mlflow-spool", copies)
    result = replay(workdir, anywhere=True)
    assert len(result.sent) == 2 and not result.left
    found = contents(uri)
    run = found["recycle"]
    assert run["status"] == found["demo " + config.digest()[:8]]["status"] == "FINISHED"
    assert run["curve"] == [(step, step / 10) for step in range(1, 10)]
    assert run["times"] == (spools[0]["opening"]["started"], json.loads(last)["time"])
    assert (run["pictures"], run["inputs"]) == (4, 1), "two pictures, each whole and small"
    assert {"psnr_rgb_dB", "cost/seconds"} <= set(run["metrics"])
    assert left_behind(workdir) == []
    shutil.copytree(copies, workdir / "mlflow-spool", dirs_exist_ok=True)  # a machine that had not heard of it
    assert len(replay(workdir, anywhere=True).sent) == 2
    assert contents(uri) == found


@pytest.mark.parametrize("moment", [3, 7, 12, 17, 21])
def test_a_replay_that_is_killed_goes_on_without_doubles_or_gaps(
    config, workdir, picture, uri, monkeypatch, moment: int
) -> None:
    """Killed right after a request was carried out, before that could be written down."""
    attempt(config, workdir, picture, 6)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    calls = 0

    def killing(original: Any) -> Any:
        def call(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
            nonlocal calls
            result = original(self, *arguments, **named)
            calls += 1
            if calls == moment:
                raise Killed
            return result

        return call

    with monkeypatch.context() as patched:
        for name in ("create_run", "log_batch", "set_tag", "log_artifact", "log_dict", "log_inputs", "set_terminated"):
            patched.setattr(MlflowClient, name, killing(getattr(MlflowClient, name)))
        with suppress(Killed):
            replay(workdir, anywhere=True)
        assert calls >= moment, "all was done before it could be killed"
    assert len(replay(workdir, anywhere=True).sent) == 1
    run = contents(uri)["recycle"]
    assert (run["status"], run["pictures"], run["inputs"]) == ("FINISHED", 2, 1)
    assert run["curve"] == [(step, step / 10) for step in range(1, 7)]


def test_the_next_stage_sends_what_the_last_one_could_not(config, workdir, picture, monkeypatch) -> None:
    down = True
    original = MlflowClient.search_runs

    def search_runs(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
        if down:
            raise OSError("the disk of the database is away")
        return original(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "search_runs", search_runs)
    attempt(config, workdir, picture, 5)
    down = False
    with tracking.stage_run("evaluate", config, workdir, "k2"):
        pass
    found = contents(f"sqlite:///{workdir / 'mlflow.db'}")
    assert len(found["recycle"]["curve"]) == 5 and found["evaluate"]["status"] == "FINISHED"
    assert found["recycle"]["parent"] == found["evaluate"]["parent"] and left_behind(workdir) == []


def test_a_process_that_was_killed_leaves_a_killed_run(config, workdir, uri, monkeypatch) -> None:
    run = SpooledRun("recycle", config, workdir, "k1")
    run.log_rows(rows(1, 3))
    run._spool.release(delivered=False)  # as the kernel does for a process that ends
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run._sender.finish()
    replay(workdir, anywhere=True)
    found = contents(uri)["recycle"]
    assert (found["status"], len(found["curve"])) == ("KILLED", 3)


def test_an_attempt_that_a_later_one_overtook_changes_no_status(config, workdir, picture, uri, monkeypatch) -> None:
    attempt(config, workdir, picture, 4, Preempted)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    attempt(config, workdir, picture, 9)  # does not send what was meant for another server
    before = contents(uri)
    assert replay(workdir, anywhere=True).sent
    after = contents(uri)
    assert {name: found["status"] for name, found in after.items()} == dict.fromkeys(before, "FINISHED")
    assert after["recycle"]["curve"] == before["recycle"]["curve"]
    assert after["recycle"]["pictures"] == before["recycle"]["pictures"] + 2, "a picture that only it had"


def test_what_was_begun_on_one_server_is_not_ended_on_another(config, workdir, picture, tmp_path, monkeypatch) -> None:
    first = SpooledRun("recycle", config, workdir, "k1")
    first.flush()
    first.log_rows(rows(1, 2))
    first._sender.finish()
    first._spool.release(delivered=False)
    other = tmp_path / "other.db"
    other.write_bytes((workdir / "mlflow.db").read_bytes())
    store = MlflowClient(f"sqlite:///{other}")
    import sqlite3

    with sqlite3.connect(other) as database:
        database.execute("delete from runs")
    database.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    (reason,) = replay(workdir, anywhere=True).left.values()
    assert "does not know run" in reason and "MLFLOW_TRACKING_URI" in reason
    assert not store.search_runs([store.get_experiment_by_name("rgsud").experiment_id])


def test_the_command_says_what_it_sent_and_what_it_kept(config, workdir, picture, uri, monkeypatch) -> None:
    from rgsud_pipelines.cli import app

    attempt(config, workdir, picture, 2)
    command = ["tracking", "replay", "--workdir", str(workdir)]
    away = CliRunner().invoke(app, command)
    assert away.exit_code == 1 and "kept" in away.output and "Connection refused" in away.output
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    meant = CliRunner().invoke(app, command)
    assert meant.exit_code == 1 and f"it was meant for {AWAY}" in meant.output
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    sent = CliRunner().invoke(app, command)
    assert sent.exit_code == 0 and "sent" in sent.output
    assert "nothing is waiting" in CliRunner().invoke(app, command).output


def test_a_pods_spool_waits_in_s3_for_another_machine(
    config, workdir, picture, uri, s3_bucket, tmp_path, monkeypatch
) -> None:
    place = f"{s3_bucket}/runs"
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "pod"))
    attempt(config, place, picture, 5)
    (kept,) = [file.address for file in list_objects(f"{place}/mlflow-spool")]
    assert kept.endswith(".tar")
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "laptop"))
    from rgsud_lib.tracking.replay import replay_all

    assert replay_all(place, anywhere=True).left, "the server is still away"
    assert [file.address for file in list_objects(f"{place}/mlflow-spool")] == [kept], "so it is back in S3"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    transfer.create(f"{kept}.claim", b"another machine")
    assert not replay_all(place, anywhere=True).sent, "another machine is at it"
    monkeypatch.setattr(remote_spools, "STALE", -1.0)
    assert replay_all(place, anywhere=True).sent
    assert len(contents(uri)["recycle"]["curve"]) == 5
    assert list(list_objects(f"{place}/mlflow-spool")) == []


def test_a_pipeline_that_ended_without_a_server_is_closed_later(config, workdir, uri, tmp_path, monkeypatch) -> None:
    from PIL import Image

    from rgsud_lib.data.prepare import source_digest

    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    for value, role in enumerate(("rainy", "clean")):
        (tmp_path / role).mkdir()
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / role / "0.png")
    sources = (str(tmp_path / "rainy"), str(tmp_path / "clean"), None)
    stages._stage("prepare", config, {"sources": source_digest(*sources)}, workdir, lambda folder, run: {})
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    assert "MLflow cannot be used" in document["notes"][-1]
    monkeypatch.delenv("KFP_RUN_ID")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result = replay(workdir, anywhere=True)
    assert len(result.sent) == 2 and not result.left
    found = contents(uri)
    parent = found["demo " + config.digest()[:8]]
    assert {run["status"] for run in found.values()} == {"FINISHED"} and len(found) == 2
    assert {"run_report.json", "run_report.md", "config.json"} <= set(parent["files"])
    assert parent["times"][1] >= found["prepare"]["times"][1] and "cost/prepare_seconds" in parent["metrics"]


def test_an_ending_that_is_told_late_knows_nothing_of_what_came_after(config, workdir, uri, monkeypatch) -> None:
    """The first pipeline run was stopped in export and the second finished it, both without a server."""

    def stopped(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        raise Preempted("saved")

    def done(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        return {}

    sources = ("/nowhere", "/nowhere either", None)
    for run_key, work, state in (("run-1", stopped, "FAILED"), ("run-2", done, "SUCCEEDED")):
        monkeypatch.setenv("KFP_RUN_ID", run_key)
        with suppress(Preempted):
            stages._stage("export", config, {"reinforced": "r"}, workdir, work)
        finalize(config.model_dump_json(), sources, workdir, state)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert len(replay(workdir).sent) == 0, "was meant for another server"
    assert len(replay(workdir, anywhere=True).sent) == 4
    store = MlflowClient(uri)
    runs = store.search_runs([store.get_experiment_by_name("rgsud").experiment_id])
    (stage,) = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    parents = {run.data.tags["rgsud.run_key"]: run.info.status for run in runs if run is not stage}
    assert (stage.info.status, parents) == ("FINISHED", {"run-1": "KILLED", "run-2": "FINISHED"})
