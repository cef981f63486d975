"""The end of a pipeline run: its MLflow run is closed, its cost summed, its results traced, whatever came before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kfp import dsl
from PIL import Image

from rgsud_lib import stages, tracking
from rgsud_lib.config import Config, load_config
from rgsud_lib.errors import Preempted
from rgsud_lib.tracking import spool
from rgsud_lib.tracking.ending import ORDER
from rgsud_lib.tracking.finalize import finalize
from rgsud_lib.tracking.run_report import StageRecord, costs, markdown, publish_report, run_status
from rgsud_lib.tracking.spooled_run import SpooledRun

pytest.importorskip("mlflow")
from mlflow.entities import Run
from mlflow.tracking import MlflowClient


@pytest.fixture(autouse=True)
def kubeflow(environment, monkeypatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "run-1")


@pytest.fixture
def sources(tmp_path: Path) -> tuple[str, str, None]:
    rng = np.random.default_rng(0)
    for role in ("rainy", "clean"):
        (tmp_path / role).mkdir()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / role / "0.png")
    return str(tmp_path / "rainy"), str(tmp_path / "clean"), None


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("demo")


def client(workdir: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workdir / 'mlflow.db'}")


def parents(workdir: Path) -> list[Run]:
    store = client(workdir)
    experiment = store.get_experiment_by_name("rgsud")
    found = store.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [run for run in found if "mlflow.parentRunId" not in run.data.tags]


def do(stage: str, config: Config, inputs: dict[str, str], workdir: Path, error: BaseException | None = None) -> str:
    """A stage whose result is a file with its name; returns the digest of its bundle."""

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        if error is not None:
            raise error
        (folder / "result").write_text(f"{stage} of {inputs}")
        return {}

    folder = stages._stage(stage, config, inputs, workdir, work)
    return json.loads((folder / "bundle.json").read_text())["digest"]


def do_two(config: Config, sources: tuple[str, str, None], workdir: Path) -> dict[str, str]:
    from rgsud_lib.data.prepare import source_digest

    dataset = do("prepare", config, {"sources": source_digest(*sources)}, workdir)
    return {"prepare": dataset, "recycle": do("recycle", config, {"dataset": dataset}, workdir)}


def by_stage(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in document["stages"]}


def test_a_good_run_is_finished_by_finalize_and_not_before(workdir, config, sources) -> None:
    made = do_two(config, sources, workdir)
    assert [run.info.status for run in parents(workdir)] == ["RUNNING"]
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    (parent,) = parents(workdir)
    assert parent.info.status == document["status"] == "FINISHED"
    rows = by_stage(document)
    assert list(rows) == list(stages.STAGES)
    for stage, digest in made.items():
        run = client(workdir).get_run(rows[stage]["run_id"])
        assert rows[stage]["status"] == run.info.status == "FINISHED"
        assert rows[stage]["bundle"] == digest == parent.data.tags[f"rgsud.{stage}_bundle"]
        assert rows[stage]["seconds"] == run.data.metrics["cost/seconds"] > 0
        assert parent.data.tags[f"rgsud.{stage}_run"] == run.info.run_id
    assert rows["recycle"]["inputs"] == {"dataset": made["prepare"]}
    assert rows["export"]["status"] == "ABSENT"
    assert document["cost"].items() <= parent.data.metrics.items()
    artifacts = {file.path for file in client(workdir).list_artifacts(parent.info.run_id)}
    assert {"run_report.json", "run_report.md", "config.json"} <= artifacts


def test_a_second_cached_run_has_its_own_parent_with_links_to_what_it_took(workdir, config, sources, monkeypatch):
    made = do_two(config, sources, workdir)
    first = by_stage(finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED"))
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    second = by_stage(document)
    assert [run.data.tags["rgsud.run_key"] for run in parents(workdir)] == ["run-1", "run-2"]
    parent = parents(workdir)[1]
    assert parent.info.status == "FINISHED" and parent.data.params == parents(workdir)[0].data.params
    for stage, digest in made.items():
        assert second[stage]["status"] == "EARLIER" and second[stage]["bundle"] == digest
        assert second[stage]["run_id"] == first[stage]["run_id"] == parent.data.tags[f"rgsud.{stage}_run"]
    assert document["cost"] == {"cost/total_seconds": 0.0, "cost/gpu_seconds": 0.0}


@pytest.mark.parametrize("setting", ["warm_start_from_champion", "reuse_pool"])
def test_what_followed_a_model_is_found_again(workdir, sources, monkeypatch, setting: str) -> None:
    from rgsud_lib.data.prepare import source_digest

    config = load_config("demo", ["retraining.keep_split=true", f"retraining.{setting}=true"])
    earlier = do("prepare", config, {"sources": "other images"}, workdir)
    last = do("reinforce", config, {"dataset": earlier}, workdir)
    do("export", config, {"dataset": earlier, "reinforced": last}, workdir)
    dataset = do("prepare", config, {"sources": source_digest(*sources), "earlier": earlier}, workdir)
    recycled = do("recycle", config, {"dataset": dataset, "reinforced": last}, workdir)
    reinforced = do("reinforce", config, {"dataset": dataset, "recycled": recycled}, workdir)
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    rows = by_stage(document)
    assert {rows[stage]["status"] for stage in ("prepare", "recycle", "reinforce")} == {"EARLIER"}, document["notes"]
    assert (rows["recycle"]["bundle"], rows["reinforce"]["bundle"]) == (recycled, reinforced)
    assert rows["recycle"]["inputs"] == {"dataset": dataset, "reinforced": last}


def test_where_nothing_was_started_the_run_is_there_and_failed(workdir, config, sources) -> None:
    document = finalize(config.model_dump_json(), sources, workdir, "FAILED", "no image in rainy")
    (parent,) = parents(workdir)
    assert parent.info.status == document["status"] == "FAILED"
    assert document["message"] == "no image in rainy" and "no image in rainy" in markdown(document)


def test_a_configuration_that_cannot_be_read_is_what_failed(workdir, sources) -> None:
    document = finalize(json.dumps({"training": {"stepz": 1}}), sources, workdir, "FAILED")
    assert document["status"] == "FAILED" and "training.stepz" in document["message"]


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [
        (ValueError("x"), "FAILED", "FAILED"),
        (SystemExit(3), "FAILED", "FAILED"),
        (Preempted("saved"), "FAILED", "KILLED"),
        (Preempted("saved"), "CANCELLED", "KILLED"),
    ],
)
def test_a_run_that_ended_badly(workdir, config, sources, error, state, status) -> None:
    with pytest.raises(type(error)):
        do("prepare", config, {"sources": "s"}, workdir, error)
    assert parents(workdir)[0].info.status == status, "bad news is told at once"
    document = finalize(config.model_dump_json(), sources, workdir, state)
    assert parents(workdir)[0].info.status == document["status"] == status
    assert by_stage(document)["prepare"]["bundle"] == ""


def test_a_stage_that_ended_without_a_word_does_not_run_forever(workdir, config, sources) -> None:
    run = SpooledRun("prepare", config, workdir, "k")
    run.flush()
    document = finalize(config.model_dump_json(), sources, workdir, "FAILED")
    assert client(workdir).get_run(run.run_id).info.status == "FAILED"
    assert by_stage(document)["prepare"]["status"] == parents(workdir)[0].info.status == "FAILED"


def part(workdir: Path, key: str, parent: str, status: str) -> str:
    """A shard's run as a task on another machine leaves it, under a parent of its own; returns its id."""
    store = client(workdir)
    experiment = store.get_experiment_by_name("rgsud").experiment_id
    own = {"rgsud.stage": "check", "rgsud.stage_key": key, "mlflow.parentRunId": parent}
    run = store.create_run(experiment, tags=own).info.run_id
    store.log_metric(run, "cost/seconds", 2.0)
    store.set_terminated(run, status)
    return run


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_parents_that_were_opened_at_once_become_one(workdir, config, sources, status) -> None:
    made = do_two(config, sources, workdir)
    store, (first,) = client(workdir), parents(workdir)
    twins = [
        store.create_run(first.info.experiment_id, tags={"rgsud.run_key": "run-1"}).info.run_id for _ in range(2)
    ]  # fmt: skip
    other = store.create_run(first.info.experiment_id, tags={"rgsud.run_key": "run-0"}).info.run_id
    part(workdir, "a", first.info.run_id, "FINISHED")
    last = part(workdir, "b", twins[0], status)
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    rows = by_stage(document)
    assert (rows["check"]["status"], rows["check"]["run_id"], rows["check"]["seconds"]) == (status, last, 4.0)
    assert rows["recycle"]["bundle"] == made["recycle"]
    assert store.get_run(last).data.tags["mlflow.parentRunId"] == first.info.run_id
    for twin in map(store.get_run, twins):
        assert (twin.info.status, twin.data.tags["rgsud.duplicate_of"]) == ("FINISHED", first.info.run_id)
    assert store.get_run(other).info.status == "RUNNING"
    assert "rgsud.duplicate_of" not in store.get_run(first.info.run_id).data.tags


@pytest.mark.parametrize("ending", [None, "KILLED"])
def test_a_stage_that_was_stopped_right_after_its_work_is_done(workdir, config, sources, monkeypatch, ending) -> None:
    """Killed without a word, or told to stop; the next attempt finds the bundle and opens no run."""
    with monkeypatch.context() as patched:
        close = SpooledRun.close
        patched.setattr(SpooledRun, "close", lambda run, status: ending and close(run, ending))
        made = do_two(config, sources, workdir)
    assert do_two(config, sources, workdir) == made
    rows = by_stage(finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED"))
    for stage, digest in made.items():
        run = client(workdir).get_run(rows[stage]["run_id"])
        assert rows[stage]["status"] == run.info.status == "FINISHED"
        assert rows[stage]["bundle"] == run.data.tags["rgsud.bundle_digest"] == digest


def test_a_stage_that_was_killed_before_it_sealed_or_delivered_is_not_done(workdir, config, sources) -> None:
    run = SpooledRun("recycle", config, workdir, "k")
    run.set_tags({"rgsud.bundle_digest": "kept on the lost machine"})
    run.flush()
    row = by_stage(finalize(config.model_dump_json(), sources, workdir, "FAILED"))["recycle"]
    assert (row["status"], row["bundle"]) == ("FAILED", "")


def test_a_part_whose_bundle_was_used_up_was_done(workdir, config, sources) -> None:
    for key, tags in (("used", {"rgsud.bundle_digest": "d"}), ("lost", {})):
        run = SpooledRun("check", config, workdir, key)
        run.set_tags(tags)
        run.flush()
    finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    store = client(workdir)
    found = store.search_runs([parents(workdir)[0].info.experiment_id], "tags.`rgsud.stage` = 'check'")
    assert {run.data.tags["rgsud.stage_key"]: run.info.status for run in found} == {
        "used": "FINISHED", "lost": "FAILED",
    }  # fmt: skip


def test_the_tags_are_set_before_the_bundle_is_delivered(workdir, config, monkeypatch) -> None:
    seen: list[str] = []

    def finish(place: str, kind: str, make: Any) -> str:
        folder = workdir / "made"
        folder.mkdir()

        def deliver() -> None:
            (run,) = client(workdir).search_runs(["1"], "tags.`rgsud.stage` = 'prepare'")
            seen.append(run.data.tags["rgsud.bundle_digest"])

        make(folder, deliver)
        return place

    monkeypatch.setattr(stages, "is_remote", lambda place: True)
    monkeypatch.setattr(stages, "finish", finish)
    stages._stage("prepare", config, {"sources": "s"}, workdir, lambda folder, run: {})
    assert len(seen) == 1


def test_seconds_add_up_over_attempts_and_pauses_cost_nothing(workdir, config, sources, monkeypatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(spool.time, "time", lambda: clock[0])
    run = SpooledRun("prepare", config, workdir, "k")
    clock[0] += 7
    run.close("KILLED")
    clock[0] += 3600
    run = SpooledRun("prepare", config, workdir, "k")
    clock[0] += 5
    run.close("FINISHED")
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    assert document["cost"]["cost/prepare_seconds"] == document["cost"]["cost/total_seconds"] == 12.0


def test_seconds_of_an_earlier_pipeline_run_are_its_own(workdir, config, sources, monkeypatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(spool.time, "time", lambda: clock[0])

    def attempt(run_key: str, seconds: float, status: str) -> None:
        monkeypatch.setenv("KFP_RUN_ID", run_key)
        run = SpooledRun("prepare", config, workdir, "k")
        clock[0] += seconds
        run.close(status)

    costs = []
    for run_key, seconds in (("run-1", (7,)), ("run-2", (2, 3)), ("run-3", (4,))):
        for some in seconds:
            attempt(run_key, some, "KILLED" if run_key != "run-3" else "FINISHED")
        document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
        costs.append(document["cost"]["cost/total_seconds"])
    assert costs == [7.0, 5.0, 4.0]
    (run,) = client(workdir).search_runs(["1"], "tags.`rgsud.stage` = 'prepare'")
    assert run.data.metrics["cost/seconds"] == 16.0


def test_a_resumed_stage_belongs_to_the_run_that_finishes_it(workdir, config, sources, monkeypatch) -> None:
    with pytest.raises(Preempted):
        do("prepare", config, {"sources": "s"}, workdir, Preempted("saved"))
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    do("prepare", config, {"sources": "s"}, workdir)
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    assert by_stage(document)["prepare"]["status"] == "FINISHED"
    assert [run.info.status for run in parents(workdir)] == ["KILLED", "FINISHED"]


def test_a_parent_that_somebody_else_opened_is_left_open(workdir, config, sources, monkeypatch) -> None:
    outer = client(workdir).create_run("0", run_name="mine").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    do("prepare", config, {"sources": "s"}, workdir)
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    found = client(workdir).get_run(outer)
    assert found.info.status == "RUNNING" and document["cost"].items() <= found.data.metrics.items()


def test_without_a_server_the_workdir_tells_what_was_made(workdir, config, sources, monkeypatch) -> None:
    made = do_two(config, sources, workdir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    rows = by_stage(document)
    assert document["status"] == "FINISHED" and "MLflow cannot be used" in document["notes"][0]
    assert {stage: rows[stage]["bundle"] for stage in made} == made
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    off = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    assert off["stages"] == document["stages"] and "MLflow is off" in off["notes"][0]


def test_sources_that_are_gone_are_a_note(workdir, config, sources) -> None:
    document = finalize(config.model_dump_json(), ("/nowhere", sources[1], None), workdir, "SUCCEEDED")
    assert document["status"] == "FINISHED" and "/nowhere does not exist" in document["notes"][0]


def test_decisions_are_reported_and_a_skipped_training_took_nothing(workdir, config, sources, monkeypatch) -> None:
    made = do_two(config, sources, workdir)
    with tracking.stage_run("gate", config, workdir, "g") as run:
        run.set_tags({"rgsud.gate": "hold"})
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    assert list(by_stage(document)) == [*stages.STAGES, "gate"]
    assert by_stage(document)["gate"]["decision"] == "hold" and "| hold |" in markdown(document)
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    with tracking.stage_run("new_data_check", config, workdir, "n") as run:
        run.set_tags({"rgsud.decision": "skip"})
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    assert list(by_stage(document)) == ["new_data_check", *stages.STAGES]
    assert {by_stage(document)[stage]["status"] for stage in made} == {"ABSENT"}


def test_every_stage_and_part_has_its_place_in_the_report() -> None:
    assert set(stages.KINDS) <= set(ORDER)
    assert [stage for stage in ORDER if stage in stages.STAGES] == list(stages.STAGES)


def test_the_status_of_a_run_in_words_of_mlflow() -> None:
    killed, failed, done = (StageRecord("recycle", status) for status in ("KILLED", "FAILED", "FINISHED"))
    assert run_status("SUCCEEDED", [done]) == "FINISHED"
    assert run_status("FAILED", [done]) == run_status("FAILED", [killed, failed]) == "FAILED"
    assert run_status("FAILED", [killed]) == run_status("CANCELLED", [failed]) == "KILLED"


def test_gpus_are_counted_apart_and_what_was_taken_costs_nothing() -> None:
    records = [
        StageRecord("prepare", "EARLIER", 9.0, "cpu", 0, "r0"),
        StageRecord("recycle", "FINISHED", 20.0, "NVIDIA H100", 4, "r1"),
        StageRecord("export", "FINISHED", 3.0, "cpu", 0, "r2"),
    ]
    assert costs(records) == {
        "cost/recycle_seconds": 20.0, "cost/export_seconds": 3.0, "cost/total_seconds": 23.0, "cost/gpu_seconds": 80.0,
    }  # fmt: skip


@pytest.mark.parametrize(("reserved", "gpus"), [("2", 2), ("", 0)])
def test_a_stage_knows_how_many_gpus_were_reserved(workdir, config, sources, monkeypatch, reserved, gpus) -> None:
    monkeypatch.setenv("RGSUD_GPUS", reserved)
    do("prepare", config, {"sources": "s"}, workdir)
    assert by_stage(finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED"))["prepare"]["gpus"] == gpus


def test_kfp_gets_the_page_and_the_numbers(workdir, config, sources, tmp_path: Path) -> None:
    made = do_two(config, sources, workdir)
    document = finalize(config.model_dump_json(), sources, workdir, "SUCCEEDED")
    page, cost = dsl.Markdown(uri=str(tmp_path / "page")), dsl.Metrics(uri=str(tmp_path / "cost"))
    publish_report(document, page, cost)
    text = (tmp_path / "page").read_text()
    assert text.startswith("# Run run-1: finished\n") and made["recycle"] in text
    assert cost.metadata["total_seconds"] == document["cost"]["cost/total_seconds"]
