"""MLflow runs of stages: one parent, resumable children, curves without gaps or doubles, training never stopped."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rgsud_lib import tracking
from rgsud_lib.config import Config, load_config
from rgsud_lib.errors import Preempted

pytest.importorskip("mlflow")
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient


def client(workdir: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workdir / 'mlflow.db'}")


def rows(first: int, last: int) -> list[dict]:
    return [{"step": step, "phase": "recycle", "loss/derain": step / 10} for step in range(first, last + 1)]


def curve(workdir: Path, run_id: str | None, name: str = "loss/derain") -> list[tuple[int, float]]:
    assert run_id is not None
    return sorted((point.step, point.value) for point in client(workdir).get_metric_history(run_id, name))


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set, the server takes no batch."""
    original, event = MlflowClient.log_batch, threading.Event()

    def log_batch(self, *arguments, **named):
        if event.is_set():
            raise MlflowException("the server is away")
        return original(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    return event


def test_one_parent_for_all_stages_and_everything_about_a_run_is_there(
    workdir: Path, config: Config, tmp_path, picture
) -> None:
    (tmp_path / "report.html").write_text("<p>")
    with tracking.stage_run("prepare", config, workdir, "k0"):
        pass
    with tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_input("dataset", "d1g3st", "/data", "recycle")
        run.log_rows(rows(1, 5))
        run.log_metrics({"psnr_rgb": 31.5})
        run.log_image(picture, "grid", 5)
        run.log_artifact(tmp_path / "report.html")
        run.set_tags({"rgsud.bundle_digest": "b"})
    store = client(workdir)
    found = store.get_run(run.run_id)
    parent = store.get_run(found.data.tags["mlflow.parentRunId"])
    experiment = store.get_experiment(found.info.experiment_id)
    everything = store.search_runs([experiment.experiment_id])
    assert sorted(other.info.run_name for other in everything) == ["demo " + config.digest()[:8], "prepare", "recycle"]
    assert experiment.artifact_location == (workdir / "mlartifacts").as_uri()
    assert {other.info.status for other in everything} == {"FINISHED"}
    assert found.data.params == {name: str(value) for name, value in config.flat().items()} == parent.data.params
    expected = {"rgsud.preset": "demo", "rgsud.seed": "7", "rgsud.device": "cpu", "rgsud.stage": "recycle"}
    expected |= {"rgsud.dataset_digest": "d1g3st", "rgsud.bundle_digest": "b", "rgsud.config_digest": config.digest()}
    assert expected.items() <= found.data.tags.items()
    assert "rgsud.code_version" in found.data.tags
    dataset = found.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest, dataset.tags[0].value) == ("dataset", "d1g3st", "recycle")
    assert curve(workdir, run.run_id) == [(step, step / 10) for step in range(1, 6)]
    assert parent.data.metrics == {"psnr_rgb_dB": 31.5}
    names = {artifact.path for artifact in store.list_artifacts(run.run_id)}
    assert {"config.json", "report.html", "images"} <= names


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (Preempted, "KILLED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "FAILED")],
)
def test_the_status_says_how_the_stage_ended(workdir: Path, config: Config, error, status) -> None:
    with pytest.raises(error), tracking.stage_run("recycle", config, workdir, "k1") as run:
        raise error("x")
    found = client(workdir).get_run(run.run_id)
    assert found.info.status == status
    assert client(workdir).get_run(found.data.tags["mlflow.parentRunId"]).info.status == status


def test_a_resumed_stage_continues_its_run_without_gaps_or_doubles(
    workdir: Path, config: Config, picture: Path
) -> None:
    with pytest.raises(Preempted), tracking.stage_run("recycle", config, workdir, "k1") as first:
        first.log_rows(rows(1, 7))
        first.log_rows([{"step": 4, "validation/psnr_rgb": 30.0}])
        first.log_image(picture, "grid/fixed", 5)
        raise Preempted("saved")
    with tracking.stage_run("recycle", config, workdir, "k1") as second:
        second.log_rows(rows(1, 3))  # the whole log again, and then from the last checkpoint on
        second.log_rows(
            [{"step": 4, "validation/psnr_rgb": 30.0}, *rows(4, 12), {"step": 8, "validation/psnr_rgb": 31.0}]
        )
        second.log_image(picture, "grid/fixed", 5)
        second.log_image(picture, "grid/fixed", 10)
    assert second.run_id == first.run_id
    assert curve(workdir, first.run_id) == [(step, step / 10) for step in range(1, 13)]
    assert curve(workdir, first.run_id, "validation/psnr_rgb_dB") == [(4, 30.0), (8, 31.0)]
    pictures = [artifact.path for artifact in client(workdir).list_artifacts(first.run_id, "images")]
    assert sorted(path.split("+step+")[1].split("+")[0] for path in pictures if "compressed" in path) == ["10", "5"]


def test_a_finished_stage_that_is_done_over_gets_a_run_of_its_own(workdir: Path, config: Config) -> None:
    runs = []
    for key in ("k1", "k1", "k2"):
        with tracking.stage_run("recycle", config, workdir, key) as run:
            run.log_rows(rows(1, 3))
        runs.append(run.run_id)
    assert len(set(runs)) == 3
    assert all(curve(workdir, run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)] for run_id in runs)


def test_a_model_is_linked_with_its_run_once_however_often_it_is_sent(
    workdir: Path, config: Config, tmp_path: Path, monkeypatch, caplog
) -> None:
    from mlflow.models import Model

    folder = tmp_path / "model"
    folder.mkdir()
    Model(metadata={"weights_digest": "w"}).save(str(folder / "MLmodel"))
    (folder / "model.onnx").write_bytes(b"weights")
    original, calls = MlflowClient.finalize_logged_model, []

    def finalize(self, *arguments, **named):
        calls.append(arguments)
        if len(calls) == 1:
            raise MlflowException("the server is away")
        return original(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "finalize_logged_model", finalize)
    with listen(caplog), tracking.stage_run("export", config, workdir, "k1") as run:
        run.log_model(folder)
    store = client(workdir)
    (output,) = store.get_run(run.run_id).outputs.model_outputs
    model = store.get_logged_model(output.model_id)
    assert (model.status, model.source_run_id, model.tags["rgsud.weights_digest"]) == ("READY", run.run_id, "w")
    assert store.get_run(run.run_id).data.tags["rgsud.model_id"] == model.model_id
    stored = Path(model.artifact_location.removeprefix("file://").replace("%20", " "))
    assert sorted(path.name for path in stored.iterdir()) == ["MLmodel", "model.onnx"]
    assert Model.load(str(stored)).model_id == model.model_id


def test_another_configuration_of_an_unfinished_stage_does_not_raise(workdir: Path, config: Config) -> None:
    """MLflow refuses a second value of a parameter; evaluation settings are not part of a training's key."""
    with pytest.raises(Preempted), tracking.stage_run("recycle", config, workdir, "k1"):
        raise Preempted("saved")
    other = load_config("demo", ["training.seed=7", "evaluation.strips=3"])
    with tracking.stage_run("recycle", other, workdir, "k1") as run:
        run.log_rows(rows(1, 1))
    assert curve(workdir, run.run_id) == [(1, 0.1)]


def test_more_values_than_a_batch_takes(workdir: Path, config: Config) -> None:
    with tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_rows([{"step": step, **{f"m{index}": 1.0 for index in range(30)}} for step in range(101)])
    assert all(len(curve(workdir, run.run_id, f"m{index}")) == 101 for index in (0, 13, 29))


def test_an_ensembles_name_is_written_as_mlflow_takes_it(workdir: Path, config: Config) -> None:
    with tracking.stage_run("evaluate", config, workdir, "k1") as run:
        run.log_metrics({"pairs/critic+2*pyiqa:niqe": 1.5})
    assert curve(workdir, run.run_id, "pairs/critic_2_pyiqa:niqe") == [(0, 1.5)]


def test_what_mlflow_will_never_take_does_not_hold_up_the_rest(workdir: Path, config: Config, caplog) -> None:
    with listen(caplog), tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_rows([{"step": 1, "x" * 300: 1.0}])
        run.log_rows(rows(2, 3))
    assert [step for step, _ in curve(workdir, run.run_id)] == [2, 3]
    assert "which is left out" in caplog.text
    assert client(workdir).get_run(run.run_id).info.status == "FINISHED"


def test_a_run_key_names_the_parent(workdir: Path, config: Config, monkeypatch) -> None:
    parents = []
    for variable, value in (("RGSUD_RUN_KEY", "it's mine"), ("KFP_RUN_ID", "kfp-1"), ("RGSUD_RUN_KEY", "it's mine")):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            with tracking.stage_run("recycle", config, workdir, "k1") as run:
                pass
        parents.append(client(workdir).get_run(run.run_id).data.tags["mlflow.parentRunId"])
    assert parents[0] == parents[2] != parents[1]


def test_mlflow_run_id_of_a_task_is_adopted(workdir: Path, config: Config, monkeypatch) -> None:
    """Kubeflow's plugin opens a run for each task, below one for the pipeline, and closes both itself."""
    store = client(workdir)
    parent = store.create_run("0", run_name="kfp run").info.run_id
    task = store.create_run("0", run_name="kfp task", tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", task)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    with pytest.raises(Preempted), tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_rows(rows(1, 3))
        raise Preempted("saved")
    assert run.run_id == task
    assert store.get_run(parent).info.status == "RUNNING"
    retry = store.create_run("0", tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", retry)
    with tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_rows(rows(1, 4))
    assert run.run_id == task, "a retried task continues the curves of its first attempt"
    assert len(curve(workdir, task)) == 4


def test_mlflow_run_id_of_a_surrounding_run_becomes_the_parent(workdir: Path, config: Config, monkeypatch) -> None:
    store = client(workdir)
    outer = store.create_run("0", run_name="mine").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    with tracking.stage_run("recycle", config, workdir, "k1") as run:
        pass
    assert run.run_id != outer
    assert store.get_run(run.run_id).data.tags["mlflow.parentRunId"] == outer
    assert store.get_run(outer).info.status == "RUNNING", "whoever opened it closes it"


def test_an_unknown_mlflow_run_id_is_reported_and_not_used(workdir: Path, config: Config, monkeypatch, caplog) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with listen(caplog), tracking.stage_run("recycle", config, workdir, "k1") as run:
        pass
    assert client(workdir).get_run(run.run_id).info.status == "FINISHED"
    assert "MLFLOW_RUN_ID=000" in caplog.text


def test_an_outage_is_a_warning_and_its_rows_are_sent_later(workdir: Path, config: Config, down, caplog) -> None:
    with listen(caplog), tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_rows(rows(1, 2))
        run.flush()
        down.set()
        run.log_rows(rows(3, 4))
        run.log_rows(rows(5, 6))
        run.flush()
        assert curve(workdir, run.run_id)[-1][0] == 2
        down.clear()
        run.log_rows(rows(7, 8))
        run.flush()
        assert [step for step, _ in curve(workdir, run.run_id)] == list(range(1, 9))
    assert "the server is away" in caplog.text and "training goes on" in caplog.text


def test_an_unreachable_server_neither_stops_nor_holds_up_training(tmp_path: Path, config: Config, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with listen(caplog), tracking.stage_run("recycle", config, tmp_path, "k1") as run:
        run.log_rows(rows(1, 3))
        done = True
    assert done and run.run_id is None
    assert "MLflow cannot be written" in caplog.text and "rgsud tracking replay" in caplog.text


@pytest.mark.parametrize("how", ["off", "not installed"])
def test_without_tracking_nothing_is_written(tmp_path: Path, config: Config, monkeypatch, how, picture) -> None:
    if how == "off":
        monkeypatch.setenv("RGSUD_TRACKING", "off")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with tracking.stage_run("recycle", config, tmp_path, "k1") as run:
        run.log_rows(rows(1, 2))
        run.log_image(picture, "grid", 1)
        run.set_tags({"a": "b"})
    assert run.run_id is None and list(tmp_path.iterdir()) == []


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, rgsud_lib.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


CREATE = "import sys; from pathlib import Path; from rgsud_lib.tracking import mlflow_store; print(1, flush=True); \
print(mlflow_store.connect(Path(sys.argv[1])).create_run('0').info.run_id)"


def start(workdir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CREATE, str(workdir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})


@pytest.mark.slow
def test_two_processes_create_the_store_at_once_after_a_third_was_killed_at_it(tmp_path: Path) -> None:
    killed = start(tmp_path)
    assert killed.stdout is not None and killed.stdout.readline() == "1\n"
    while not list(tmp_path.glob(".mlflow.db.partial*")):
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    both = [start(tmp_path), start(tmp_path)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert [error for _, error in answers] == ["", ""], "migrations are not shown to the user"
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select count(*) from runs").fetchone() == (2,)
    connection.close()
    assert not list(tmp_path.glob(".mlflow.db.partial*"))


def listen(caplog):
    """caplog hears the project's logger, whether or not something has cut it off from the root."""
    logger = logging.getLogger("rgsud")
    caplog.handler.setLevel(logging.WARNING)

    class Listening:
        def __enter__(self) -> None:
            self.propagate, logger.propagate = logger.propagate, True

        def __exit__(self, *error: object) -> None:
            logger.propagate = self.propagate

    return Listening()


def test_a_stage_in_s3_continues_its_run_elsewhere(workdir: Path, config: Config, monkeypatch, tmp_path) -> None:
    client(workdir).create_experiment("rgsud", (workdir / "mlartifacts").as_uri())  # else ./mlruns
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir / 'mlflow.db'}")
    ids = []
    for node in ("a", "b"):
        monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / node))
        with pytest.raises(Preempted), tracking.stage_run("recycle", config, "s3://bucket/runs", "k1") as run:
            raise Preempted("SIGTERM")
        ids.append(run.run_id)
    assert ids[0] == ids[1]
    assert client(workdir).get_run(ids[0]).data.tags["rgsud.workdir"] == "s3://bucket/runs"


def test_of_parents_that_two_machines_open_at_once_the_oldest_counts(workdir, config, monkeypatch) -> None:
    from rgsud_lib.tracking import mlflow_store

    with tracking.stage_run("prepare", config, workdir, "a"):
        pass
    original, looks = mlflow_store.tagged, []

    def tagged(client: MlflowClient, experiment: str, tag: str, value: str) -> list:
        looks.append(tag)
        return [] if looks.count(mlflow_store.RUN_KEY) == 1 else original(client, experiment, tag, value)

    monkeypatch.setattr(mlflow_store, "tagged", tagged)
    with tracking.stage_run("recycle", config, workdir, "b"):
        pass
    runs = client(workdir).search_runs(["1"], order_by=["attributes.start_time ASC"])
    first, second = [run.info.run_id for run in runs if mlflow_store.RUN_KEY in run.data.tags]
    assert [run.data.tags[mlflow_store.PARENT] for run in runs if mlflow_store.STAGE in run.data.tags] == [first] * 2
    assert mlflow_store.parents(client(workdir), workdir, tracking.run_key(config, workdir)) == [first, second]


def test_a_slow_server_holds_up_no_step(workdir: Path, config: Config, picture: Path, monkeypatch) -> None:
    original = MlflowClient.log_batch

    def log_batch(self, *arguments, **named):
        time.sleep(0.3)
        return original(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    with tracking.stage_run("recycle", config, workdir, "k1") as run:
        start = time.monotonic()
        for step in range(1, 101):
            run.log_rows(rows(step, step))
        run.log_image(picture, "grid", 100)
        assert time.monotonic() - start < 10, "each of 101 requests would have taken 0.3 s"
    assert len(curve(workdir, run.run_id)) == 100


def test_system_metrics_are_kept_over_an_outage_and_their_steps_are_seconds(workdir, config, down, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.flush()
        down.set()
        while len(run._spool.pending()) < 3:
            time.sleep(0.05)
        down.clear()
    name = "system/cpu_utilization_percentage"
    points = client(workdir).get_metric_history(run.run_id, name)
    began = client(workdir).get_run(run.run_id).info.start_time
    assert len(points) >= 3
    assert [point.step for point in points] == [(point.timestamp - began) // 1000 for point in points]


def test_a_workdir_without_room_for_records_trains_all_the_same(workdir: Path, config: Config, caplog) -> None:
    (workdir / "mlflow-spool").write_text("in the way")
    with listen(caplog), tracking.stage_run("recycle", config, workdir, "k1") as run:
        run.log_rows(rows(1, 2))
    assert not run.tracked and "MLflow will not hear of this stage" in caplog.text
