"""The whole pipeline through the command line: killed wherever it hurts, it ends with the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from rgsud_lib.data.demo import make_demo_data
from rgsud_lib.files import sha256_file

SETTINGS = (
    "warm_start.steps=4", "warm_start.batch=2", "training.steps=8", "training.batch=2", "training.checkpoint_every=3",
    "training.log_every=1", "training.validate_every=4", "training.validation_images=1", "training.threads=1",
    "critic.steps=12", "critic.crop=48", "reward.round_every=2", "reward.budget=0.4", "reinforcement.steps=8",
    "evaluation.strips=1",
)  # fmt: skip
RESULTS = (
    "prepare-*/critic.safetensors",
    "recycle-*/derainer.safetensors", "recycle-*/networks.safetensors", "recycle-*/pool/index.json",
    "recycle-*/log.jsonl", "reinforce-*/derainer.safetensors", "reinforce-*/networks.safetensors",
    "reinforce-*/pool/index.json", "reinforce-*/log.jsonl", "evaluate-*/metrics.json", "export-*/*.safetensors",
)  # fmt: skip

SIDE = 200  # pixels: the judge's model needs some blocks of 96

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[str]:
    """A few of the demo's pictures, as the arguments of `rgsud run`."""
    folder = tmp_path_factory.mktemp("photographs")
    sources = dict(zip(("rainy", "clean", "paired"), make_demo_data(folder / "all"), strict=True))
    for name, kept in (("rainy", 4), ("clean", 4), ("paired/rain", 1), ("paired/clean", 1)):
        (folder / name).mkdir(parents=True)
        root, _, rest = name.partition("/")
        for file in sorted((Path(sources[root]) / rest).iterdir())[:kept]:
            Image.open(file).crop((0, 0, SIDE, SIDE)).save(folder / name / file.name)
    return [part for name in sources for part in (f"--{name}", str(folder / name))]


def start(photographs: list[str], workdir: Path, tracking: str = "off") -> subprocess.Popen[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [sys.executable, "-c", "from rgsud_pipelines.cli import main; main()", "run", *photographs, *settings]
    environment = {**os.environ, "RGSUD_TRACKING": tracking}
    return subprocess.Popen(
        [*command, "--workdir", str(workdir)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    out, err = (process := start(photographs, workdir, "on")).communicate()
    assert process.returncode == 0, err
    assert "stage 2" in out and str(workdir) in out
    return workdir


def results(workdir: Path) -> dict[str, str]:
    found = {}
    for pattern in RESULTS:
        files = list((workdir / "stages").glob(pattern))
        assert len(files) == 1, (pattern, files)
        found[pattern] = sha256_file(files[0])
    return found


def test_a_run_leaves_report_model_and_tracked_runs(undisturbed: Path) -> None:
    from mlflow.tracking import MlflowClient

    assert {path.suffix for path in (undisturbed / "export").iterdir()} >= {".safetensors", ".onnx"}
    assert next((undisturbed / "stages").glob("evaluate-*/report.html")).stat().st_size > 10_000
    client = MlflowClient(f"sqlite:///{undisturbed / 'mlflow.db'}")
    runs = {
        run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("rgsud").experiment_id])
    }
    assert {"prepare", "recycle", "reinforce", "evaluate", "export", "gate"} < set(runs) and len(runs) == 7
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for stage, first, last in (("recycle", 1, 12), ("reinforce", 1, 8)):
        log = next((undisturbed / "stages").glob(f"{stage}-*/log.jsonl")).read_text().splitlines()
        steps = [json.loads(line)["step"] for line in log if "loss/derain" in json.loads(line)]
        curve = client.get_metric_history(runs[stage].info.run_id, "loss/derain")
        assert sorted(point.step for point in curve) == steps
        assert (min(steps), max(steps)) == (first, last)


def test_the_same_command_again_does_nothing(undisturbed: Path, photographs: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "stages").rglob("*")}
    _, err = (process := start(photographs, undisturbed)).communicate()
    assert process.returncode == 0, err
    assert err.count("finished before") == 5 and "step" not in err
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "stages").rglob("*")} == before


def rows(stage: str, count: int) -> Callable[[Path], bool]:
    def reached(stages: Path) -> bool:
        return any(len(log.read_bytes().splitlines()) >= count for log in stages.glob(f"{stage}-*/log.jsonl"))

    return reached


def begun(stage: str) -> Callable[[Path], bool]:
    return lambda stages: any(stages.glob(f"{stage}-*/.lock"))


def kill_when(process: subprocess.Popen[str], moment: Callable[[Path], bool], stages: Path, everything: bool) -> None:
    """kill -9: the whole family, or the launcher alone, whose stage must then end by itself."""
    while not moment(stages):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if everything:
                child.kill()
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, "a stage outlived its launcher"


def test_killed_in_every_stage_a_run_ends_with_the_same_bytes(
    undisturbed: Path, photographs: list[str], tmp_path: Path
):
    moments = [
        (begun("prepare"), True), (begun("recycle"), True), (rows("recycle", 2), True), (rows("recycle", 7), False),
        (rows("recycle", 10), True), (rows("reinforce", 1), False), (rows("reinforce", 5), True),
        (begun("evaluate"), True), (begun("export"), False),
    ]  # fmt: skip
    for moment, everything in moments:
        kill_when(start(photographs, tmp_path), moment, tmp_path / "stages", everything)
    _, err = (process := start(photographs, tmp_path)).communicate()
    assert process.returncode == 0, err
    assert results(tmp_path) == results(undisturbed)


def chromium(*arguments: str) -> str:
    """A headless browser's standard output; fails (not skips) without one."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
    command = ["chromium", *options, "--virtual-time-budget=15000", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.integration
@pytest.mark.parametrize("stage", ["prepare", "evaluate"])
def test_a_report_is_a_page_with_pictures(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    report = next((undisturbed / "stages").glob(f"{stage}-*/report.html"))
    chromium("--window-size=1400,1600", f"--screenshot={tmp_path / 'page.png'}", report.as_uri())
    page = Image.open(tmp_path / "page.png").convert("RGB")
    assert page.size == (1400, 1600)
    assert len(page.getcolors(page.width * page.height)) > 1000, "text alone has fewer colours than photographs"


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.integration
def test_the_mlflow_page_shows_the_runs(undisturbed: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from rgsud_pipelines.cli import main; main()", "ui", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--workdir", str(undisturbed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        page = chromium("--dump-dom", f"http://127.0.0.1:{port}/#/experiments/1/runs")
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(timeout=30)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert "rgsud" in page and "demo " in page
