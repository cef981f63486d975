"""`rgsud run` around instant stages: what kfp.local would swallow comes out, and nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.storage import remote

STAGES = ("prepare", "recycle", "reinforce", "evaluate", "export")
RUN = "from rgsud_pipelines.cli import main; main()"
RETRAIN = """
from pathlib import Path
from rgsud_lib.config import load_config
from rgsud_pipelines.local import run_pipeline
from rgsud_pipelines.retraining import retraining_pipeline
folders = [str(Path(name).absolute()) for name in ("rainy", "clean")]
print(sorted(run_pipeline(load_config("demo"), *folders, None, "runs", retraining_pipeline)))
"""


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `rgsud run`, or Python code in its place, on two small folders; FAKE_<STAGE> variables as keywords."""
    rng = np.random.default_rng(0)
    for folder in ("rainy", "clean"):
        (tmp_path / folder).mkdir()
        for index in range(3):
            picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
            Image.fromarray(picture).save(tmp_path / folder / f"{index}.png")
    running: list[subprocess.Popen[str]] = []

    def start(
        workdir: str = "runs", code: str = RUN, settings: tuple[str, ...] = (), **fakes: str
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "fake_stages"), **fakes}
        command = [sys.executable, "-c", code, "run", "--rainy", "rainy"]
        process = subprocess.Popen(
            [*command, "--clean", "clean", "--workdir", workdir, *(f"--set={setting}" for setting in settings)],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def wait_for(path: Path, pattern: str, seconds: float = 60) -> Path:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = list(path.glob(pattern))
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{path / pattern} did not appear")


def gone(pid: int, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_run_delivers_and_the_same_command_again_does_nothing(launch, tmp_path: Path) -> None:
    out, err = (process := launch()).communicate(timeout=120)
    assert process.returncode == 0, err
    runs = tmp_path / "runs"
    assert (runs / "export" / "derainer.safetensors").read_text() == "export"
    assert "report.html" in out and "rgsud ui" in out and "30.0" in out
    assert [line.split(":")[0] for line in err.splitlines()] == list(STAGES), (
        "progress reaches the terminal, KFP's own lines do not"
    )
    finished = {path: path.stat().st_mtime_ns for path in runs.glob("stages/*/*")}
    out, err = (process := launch()).communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("finished before") == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in runs.glob("stages/*/*")} == finished


def test_a_workdir_in_s3_holds_the_results_and_the_artifacts_only_point_there(launch, s3_bucket: str, tmp_path) -> None:
    _, err = (process := launch(f"{s3_bucket}/runs")).communicate(timeout=120)
    assert process.returncode == 0, err
    exported = remote.newest("export", f"{s3_bucket}/runs")
    assert (remote.pulled(exported) / "derainer.safetensors").read_text() == "export"
    artifacts = {path.parent: path for path in remote.local_root(f"{s3_bucket}/runs").glob("kfp/**/bundle.json")}
    assert len(artifacts) == len(STAGES) and all(list(folder.iterdir()) == [path] for folder, path in artifacts.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ahead.txt", "cache", "clean", "rainy"]
    out, err = (process := launch(f"{s3_bucket}/runs")).communicate(timeout=120)
    assert err.count("finished before") == len(STAGES) and "derainer.safetensors" in out


def test_every_task_ran_on_the_artifacts_of_the_ones_before(launch, tmp_path: Path) -> None:
    _, err = (process := launch()).communicate(timeout=120)
    assert process.returncode == 0, err
    bundles = {}
    for path in (tmp_path / "runs").glob("stages/*/bundle.json"):
        bundle = json.loads(path.read_text())
        bundles[bundle["kind"]] = bundle
    digest = {kind: bundle["digest"] for kind, bundle in bundles.items()}
    assert list(bundles["reinforced"]["inputs"].values()) == [digest["dataset"], digest["recycled"]]
    assert list(bundles["export"]["inputs"].values()) == [
        digest[kind] for kind in ("dataset", "reinforced", "evaluation")
    ]


def test_a_large_set_is_checked_and_scored_in_shards(launch, tmp_path: Path) -> None:
    _, err = (process := launch(settings=("fan_out.images=2",))).communicate(timeout=120)
    assert process.returncode == 0, err
    done = (tmp_path / "ahead.txt").read_text().split()
    assert sorted(done) == [f"{stage}{index}" for stage in ("evaluate", "prepare") for index in range(3)]


@pytest.mark.parametrize("verdict", ["promote", "hold"])
def test_only_what_the_gate_lets_pass_is_promoted(launch, tmp_path: Path, verdict: str) -> None:
    _, err = (process := launch(FAKE_GATE=verdict)).communicate(timeout=120)
    assert process.returncode == 0, err
    champion = tmp_path / "runs" / "champion"
    assert champion.exists() == (verdict == "promote")
    if verdict == "promote":
        exported = next((tmp_path / "runs" / "stages").glob("export-*/bundle.json"))
        assert champion.read_text() == json.loads(exported.read_text())["digest"]


@pytest.mark.parametrize(
    ("answer", "made"), [("train", ["dataset", "evaluation", "exported", "recycled", "reinforced"]), ("skip", [])]
)
def test_retraining_trains_where_there_is_enough_new_rain(launch, tmp_path: Path, answer: str, made: list[str]) -> None:
    out, err = (process := launch(code=RETRAIN, FAKE_CHECK=answer, FAKE_GATE="promote")).communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.strip() == str(made)
    assert (tmp_path / "runs" / "champion").exists() == bool(made)


def report(workdir: Path) -> str:
    """What the exit handler wrote last."""
    return max(workdir.glob("kfp/rgsud-training-*/finalize/report")).read_text()


@pytest.mark.parametrize(
    ("behaviour", "code", "message"),
    [
        ("bad data", 2, "error: recycle: rain_7.png is 3 pixels wide"),
        ("full disk", 1, "error: recycle: the disk is full"),
        ("bug", 1, "ZeroDivisionError: a mistake of ours"),
        ("killed", 1, "ended without a word"),
    ],
)
def test_a_stages_failure_comes_out_with_its_message_and_exit_code(
    launch, tmp_path: Path, behaviour, code, message
) -> None:
    _, err = (process := launch(FAKE_RECYCLE=behaviour)).communicate(timeout=120)
    assert process.returncode == code
    assert message in err
    assert ("Traceback" in err) == (behaviour == "bug")
    assert "reinforce" not in err
    assert report(tmp_path / "runs").splitlines()[0].endswith(": failed"), "the exit handler ran after the failure"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_stage_which_saves_and_the_command_resumes(launch, tmp_path: Path, number, code) -> None:
    process = launch(FAKE_REINFORCE="long")
    folder = wait_for(tmp_path / "runs" / "stages", "reinforce-*/.long").parent
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert (folder / ".saved").exists() and "step 7 was saved" in err
    assert gone(int((folder / ".pid").read_text()), 1)
    _, err = (process := launch()).communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("finished before") == 2


def test_a_killed_launcher_leaves_no_stage_running(launch, tmp_path: Path) -> None:
    process = launch(FAKE_REINFORCE="long")
    folder = wait_for(tmp_path / "runs" / "stages", "reinforce-*/.long").parent
    process.kill()
    assert gone(int((folder / ".pid").read_text()))
    assert (folder / ".saved").exists()
