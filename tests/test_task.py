"""A stage's process: locks, published bundles, errors in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import dsl

from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.errors import DataError, RgsudError
from rgsud_lib.task import FAILURE, STOPPING, exclusive, publish, task

HOLD = """
import sys, time
from pathlib import Path
from rgsud_lib.task import exclusive
with exclusive(Path(sys.argv[1])):
    print(1, flush=True)
    time.sleep(60)
"""


def holder(lock: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"1\n"
    return process


def test_a_lock_is_refused_while_another_process_has_it_and_free_once_that_is_killed(tmp_path: Path) -> None:
    process = holder(tmp_path / ".lock")
    try:
        with (
            pytest.raises(RgsudError, match="another process has been working"),
            exclusive(tmp_path / ".lock", patience=0.2),
        ):
            pass
    finally:
        process.kill()
        process.communicate()
    with exclusive(tmp_path / ".lock", patience=0):
        pass


def test_waiting_for_a_process_that_is_just_ending(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("60", "0.5"), str(tmp_path / ".lock")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    start = time.monotonic()
    with exclusive(tmp_path / ".lock", patience=20):
        assert 0.1 < time.monotonic() - start < 10
    process.communicate()


def test_publish_hands_over_the_bundle_and_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "weights").write_bytes(b"w")
    bundle = seal(tmp_path / "stage", "recycled", "c", inputs={"dataset": "d"})
    artifact = dsl.Model(uri=str(tmp_path / "artifact"))
    publish(tmp_path / "stage", artifact)
    assert open_bundle(Path(artifact.path), "recycled").digest == bundle.digest == artifact.metadata["digest"]
    assert artifact.metadata["kind"] == "recycled" and artifact.metadata["folder"] == str(tmp_path / "stage")
    assert json.loads(artifact.metadata["inputs"]) == {"dataset": "d"}


@pytest.fixture
def launched(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv(FAILURE, str(tmp_path / "failure.json"))
    return tmp_path / "failure.json"


def test_an_error_ends_the_process_with_its_code_and_leaves_its_message(launched: Path) -> None:
    with pytest.raises(SystemExit) as ended, task("prepare"):
        raise DataError("no images in x")
    assert ended.value.code == 2
    assert json.loads(launched.read_text()) == {"stage": "prepare", "exit_code": 2, "message": "no images in x"}


def test_a_mistake_of_ours_keeps_its_traceback(launched: Path) -> None:
    with pytest.raises(ZeroDivisionError), task("prepare"):
        raise ZeroDivisionError("x")
    assert json.loads(launched.read_text())["message"] == "ZeroDivisionError: x"


def test_without_a_launcher_the_message_goes_with_the_exit(monkeypatch) -> None:
    monkeypatch.delenv(FAILURE, raising=False)
    with pytest.raises(SystemExit, match="prepare: no images in x"), task("prepare"):
        raise DataError("no images in x")


def test_no_stage_begins_after_the_launcher_was_stopped(launched: Path, monkeypatch) -> None:
    monkeypatch.setenv(STOPPING, "1")
    began = False
    with pytest.raises(SystemExit) as ended, task("export"):
        began = True
    assert ended.value.code == 143 and not began
    assert "export" in json.loads(launched.read_text())["message"]


def test_a_stage_ends_with_its_launcher(tmp_path: Path) -> None:
    stage = "import time; from rgsud_lib.task import task\nwith task('x'): print(1, flush=True); time.sleep(60)"
    launcher = (
        "import os, subprocess, sys; os.environ['RGSUD_LAUNCHER_PID'] = str(os.getpid())\n"
        "p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher, stage], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(pid, 0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the stage still runs"
        time.sleep(0.05)
    process.stdout.close()
