"""Waiting for a run, and the table of runs."""

from __future__ import annotations

import logging
import time

import pytest

from rgsud_lib.task import explain
from rgsud_pipelines.cluster import watch
from rgsud_pipelines.cluster.kfp_session import KubeflowError

from .conftest import SOURCES


@pytest.fixture(autouse=True)
def quick(monkeypatch, caplog) -> None:
    monkeypatch.setattr(watch, "POLL", 0.01)
    monkeypatch.setattr(logging.getLogger("rgsud"), "propagate", True)  # another test may have called log_to_stderr
    caplog.set_level(logging.INFO, logger="rgsud")


def look(state: str, **tasks: str) -> dict:
    """What one look at a run finds."""
    details = [{"task_id": name, "display_name": name.replace("_", "-"), "state": tasks[name]} for name in tasks]
    return {"state": state, "run_details": {"task_details": details}}


def test_each_change_is_told_once_and_success_is_0(stub, rgsud, caplog) -> None:
    driver = {"data_prep_driver": "SUCCEEDED", "root": "RUNNING"}
    stub.script = [
        look("PENDING"),
        look("RUNNING", data_prep="RUNNING", **driver),
        look("RUNNING", data_prep="RUNNING", **driver),
        look("SUCCEEDED", data_prep="SUCCEEDED", export="SKIPPED", **driver),
    ]
    assert rgsud("submit", *SOURCES, "--wait").exit_code == 0
    told = [record.getMessage().partition("  ")[2] for record in caplog.records]
    assert told == ["data-prep: running", "data-prep: succeeded", "export: skipped"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_any_other_end_is_1_with_its_reasons(stub, rgsud, state) -> None:
    stub.script = [look(state, sr_training="FAILED")]
    stub.script[0]["run_details"]["task_details"][0]["error"] = {"code": 1, "message": "the disk is full"}
    result = rgsud("submit", *SOURCES, "--wait", "--name", "nightly")
    code, message = explain(result.exception)
    assert code == 1
    assert message == f"run 'nightly' {state.lower()}\n  sr-training: the disk is full"


def test_ctrl_c_leaves_the_run_running(stub, rgsud, monkeypatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    stub.script = [look("RUNNING")]
    monkeypatch.setattr(time, "sleep", interrupted)
    code, message = explain(rgsud("submit", *SOURCES, "--wait").exception)
    assert code == 130
    assert message.startswith(f"no longer waiting; the run goes on: {stub.url}/#/runs/details/run-")
    assert stub.writes[-1] == "run_service_create_run"


def test_a_server_that_is_updated_meanwhile_is_waited_for(stub, rgsud, caplog) -> None:
    stub.script = [look("RUNNING"), 503, 503, look("SUCCEEDED")]
    assert rgsud("submit", *SOURCES, "--wait").exit_code == 0
    assert "the server does not answer" in caplog.text


def test_a_server_that_stays_away_ends_the_waiting(stub, rgsud, caplog, monkeypatch) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 3)
    stub.script = [503]
    result = rgsud("submit", *SOURCES, "--wait")
    assert isinstance(result.exception, KubeflowError) and "HTTP 503" in str(result.exception)
    assert "the run goes on" in caplog.text


def test_a_login_that_expires_meanwhile_ends_the_waiting(stub, rgsud, caplog) -> None:
    stub.script = [look("RUNNING"), 401]
    assert "HTTP 401" in str(rgsud("submit", *SOURCES, "--wait").exception)
    assert "the run goes on" in caplog.text


def test_runs_newest_first_with_state_and_duration(stub, rgsud) -> None:
    assert rgsud("runs").stdout == "no runs yet\n\nno schedules\n"
    for name in ("first", "second", "third"):
        rgsud("submit", *SOURCES, "--name", name)
    record = stub.tables["run"][1]
    record |= {"state": "FAILED", "created_at": "2026-11-24T10:00:00Z", "finished_at": "2026-11-24T12:30:07Z"}
    lines = rgsud("runs", "--limit", "2").stdout.splitlines()
    assert lines[0].split()[:5] == ["created", "(UTC)", "name", "state", "took"]
    assert "third" in lines[1] and "  pending  " in lines[1]
    assert lines[2].split() == ["2026-11-24", "10:00", "second", "failed", "2:30:07", record["run_id"]]
    assert "first" in rgsud("runs", "--experiment", "rgsud").stdout


def test_an_experiment_that_is_not_there(stub, rgsud) -> None:
    assert "no experiment is called 'rian'" in str(rgsud("runs", "--experiment", "rian").exception)
