"""The command line: instant help, clear refusals, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rgsud_lib.bundle import seal
from rgsud_lib.errors import BundleError, DataError, Preempted, TrainingError
from rgsud_lib.task import explain
from rgsud_pipelines import cli

COMMANDS = (
    "run",
    "prepare",
    "recycle",
    "reinforce",
    "evaluate",
    "export",
    "derain",
    "audit-rewards",
    "new-data",
    "serve",
    "ui",
    "config",
    "registry",
    "data",
)


def rgsud(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from rgsud_pipelines.cli import main; main()", *arguments]
    environment = {**os.environ, "RGSUD_TRACKING": "off"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=60, check=False)


def test_help_answers_at_once_and_teaches() -> None:
    seconds = []
    for _ in range(3):
        before = os.times()
        answer = rgsud("--help")
        after = os.times()
        # Processor time: on a quiet machine that is what a user waits, on a busy one it is still the command's own.
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert answer.returncode == 0
    assert min(seconds) < 0.5, seconds
    assert "rgsud run --rainy my/rain --clean my/clean" in answer.stdout
    assert all(f"  {command} " in answer.stdout for command in COMMANDS)


def test_version() -> None:
    from rgsud_lib import __version__

    assert rgsud("--version").stdout == f"rgsud {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--set", "trainin.steps=3"), "unknown setting 'trainin.steps'; did you mean training.steps"),
        (("run", "--set", "training.steps=many"), "training.steps='many'"),
        (("run", "--set", "training.steps"), "expected section.field=value"),
        (("run", "--preset", "tiny"), "unknown preset 'tiny'; choose one of demo, cpu, paper"),
        (("run", "--preset", "cpu"), "give both --rainy DIR and --clean DIR"),
        (("run", "--rainy", "here"), "give both --rainy DIR and --clean DIR"),
        (("run", "--rainy", "nowhere", "--clean", "nowhere2"), "nowhere"),
        (("recycle",), "no finished 'dataset' bundle in rgsud-runs"),
        (("ui",), "no runs in rgsud-runs yet"),
        (("derain", "nothing.jpg", "out.png"), "nothing.jpg does not exist"),
        (("run", "--unknown"), "No such option"),
        (("fly",), "No such command"),
    ],
)
def test_bad_input_is_refused_with_its_reason_and_nothing_is_written(tmp_path: Path, arguments, message) -> None:
    answer = rgsud(*arguments, cwd=tmp_path)
    assert answer.returncode == 2, answer.stderr
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_config_prints_values_and_meanings() -> None:
    lines = rgsud("config", "--preset", "cpu", "--set", "training.steps=77").stdout.splitlines()
    assert "training.steps=77  # optimiser steps of stage 1" in lines
    assert "preset=cpu" in lines


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("a"), 2, "a"),
        (BundleError("b"), 2, "b"),
        (TrainingError("c"), 1, "c"),
        (Preempted("d"), 143, "d"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/x/model"), 1, "the disk is full (/x/model)"),
        (PermissionError(13, "Permission denied", "/x"), 1, "no permission for /x"),
    ],
)
def test_exit_codes(error, code, message) -> None:
    explained = explain(error)
    assert explained is not None
    assert explained[0] == code and message in explained[1]


def test_a_mistake_of_ours_is_not_explained_away() -> None:
    assert explain(ZeroDivisionError()) is None


def test_the_newest_finished_bundle_of_a_kind_is_taken(tmp_path: Path) -> None:
    for age, (name, kind) in enumerate(
        (("recycle-new", "recycled"), ("recycle-old", "recycled"), ("prepare-x", "dataset"))
    ):
        folder = tmp_path / "stages" / name
        folder.mkdir(parents=True)
        seal(folder, kind, "0")
        os.utime(folder / "bundle.json", (1000 - age, 1000 - age))
    (tmp_path / "stages" / "recycle-unfinished").mkdir()
    assert cli._newest("recycled", None, tmp_path).name == "recycle-new"
    assert cli._newest("recycled", Path("given"), tmp_path) == Path("given")
    with pytest.raises(BundleError, match="no finished 'reinforced' bundle"):
        cli._newest("reinforced", None, tmp_path)
