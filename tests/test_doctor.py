"""Each check says what is wrong and what to do; a stage stops on what it cannot do without, and on nothing else."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from rgsud_lib import doctor
from rgsud_lib.errors import NodeError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RGSUD_GPUS", "MLFLOW_TRACKING_URI", "RGSUD_IMAGE", "RGSUD_COMMIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "GPU_PROBE", "print('[]')")


def free_space(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**40, 0, int(gib * 2**30)))


def test_a_laptop_is_fine_and_the_line_is_quiet(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, "rgsud"):
        doctor.check_node("recycle", tmp_path)
    assert not caplog.records
    assert {found.status for found in doctor.examine(tmp_path)} == {"ok"}


def test_a_gpu_that_was_asked_for_and_is_not_there(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RGSUD_GPUS", "2")
    with pytest.raises(NodeError, match="gpu: 0 of the 2 asked for by RGSUD_GPUS are visible; does the node have"):
        doctor.check_node("recycle", tmp_path)


def test_gpus_and_their_memory_are_logged_in_one_line(monkeypatch, tmp_path: Path, caplog) -> None:
    monkeypatch.setenv("RGSUD_GPUS", "1")
    monkeypatch.setattr(doctor, "GPU_PROBE", f"print('''{json.dumps([['H100', 78 * 2**30, 80 * 2**30]])}''')")
    with caplog.at_level(logging.INFO, "rgsud"):
        doctor.check_node("recycle", tmp_path)
    assert len(caplog.records) == 1 and "recycle: gpu H100 78 of 80 GiB free; " in caplog.text


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("raise RuntimeError('CUDA driver too old')", "cannot be used (RuntimeError: CUDA driver too old)"),
        ("import time; time.sleep(60)", "does not answer within 1 s; drain this node"),
    ],
)
def test_a_gpu_that_is_broken_or_hangs(monkeypatch, probe: str, message: str) -> None:
    monkeypatch.setattr(doctor, "GPU_PROBE", probe)
    monkeypatch.setattr(doctor, "PATIENCE", 1.0)
    found = doctor.gpu(1)
    assert found.status == "fail" and message in found.message


def test_the_probe_is_python_that_runs_here(monkeypatch) -> None:
    monkeypatch.undo()
    assert doctor.gpu(0).status == "ok"


def test_shared_memory_matters_between_several_gpus(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(64 * 2**20, 0, 0))
    assert doctor.shared_memory(1, tmp_path).status == "ok"
    found = doctor.shared_memory(2, tmp_path)
    assert (found.status, "0.1 GiB, 2 GPUs need 1 GiB; mount a larger one" in found.message) == ("fail", True)


@pytest.mark.parametrize(("gib", "status"), [(0.5, "fail"), (3, "warn"), (50, "ok")])
def test_disk_space(monkeypatch, tmp_path: Path, gib: float, status: str) -> None:
    free_space(monkeypatch, gib)
    found = doctor.disk("cache", tmp_path / "not" / "yet")
    assert found.status == status and f"{gib:.1f} GiB free" in found.message
    assert ("mount a larger volume" in found.message) == (status != "ok")


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path: Path) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = doctor.disk("workdir", tmp_path)
    assert found == doctor.Finding(
        "workdir", "fail", f"{tmp_path} cannot be written (Permission denied); mount a volume there"
    )


def test_an_absent_mlflow_is_a_warning_that_stops_nothing(monkeypatch, tmp_path: Path, caplog) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    doctor.check_node("recycle", tmp_path)
    assert "http://127.0.0.1:9 does not answer" in caplog.text and "sent when it does" in caplog.text


def test_image_and_packages(monkeypatch) -> None:
    monkeypatch.setenv("RGSUD_IMAGE", "registry/rgsud@sha256:abc")
    assert doctor.image().message.startswith("registry/rgsud@sha256:abc, commit unknown, rgsud ")
    assert "torch 2." in doctor.packages().message
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["torch>=99", "absent-package>=1"])
    found = doctor.packages()
    assert found.status == "fail"
    assert "needed is >=99; absent-package is missing" in found.message


def test_the_command_prints_a_line_each_and_its_exit_code(monkeypatch, tmp_path: Path, capsys) -> None:
    from rgsud_pipelines.cli import main

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["rgsud", "doctor", "--workdir", str(tmp_path), *options])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0

    assert run() == 0
    assert "ok    gpu: none here" in capsys.readouterr().out
    free_space(monkeypatch, 0.1)
    assert run("--json") == 1
    findings = {found["check"]: found["status"] for found in json.loads(capsys.readouterr().out)}
    assert findings["cache"] == findings["workdir"] == "fail" and findings["packages"] == "ok"
