"""A whole table of two seeds on tiny images; stopped, it goes on, and the second time it trains nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rgsud_lib import stages
from rgsud_lib.errors import ConfigError, Preempted
from rgsud_lib.tables import Request, make_table
from rgsud_lib.tables.arms import timed

from .conftest import TINY

SETTINGS = tuple(TINY.split())
ARMS = ("rewards", "continue", "continue for equal time")


@pytest.fixture(scope="module")
def made(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, str, Path]:
    workdir = tmp_path_factory.mktemp("work")
    request = Request("plug-in", sets, workdir, "cpu", SETTINGS, seeds=(0, 1), rows=("rgsud",), arms=ARMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RGSUD_TRACKING", "off")
        text, page = make_table(request)
    return request, text, page


def test_the_table_has_every_arm_of_every_seed(made: tuple[Request, str, Path]) -> None:
    _, text, page = made
    record = json.loads(page.with_suffix(".json").read_text())
    arms = [outcome["arm"] for outcome in record["outcomes"] if outcome["seed"] == 1]
    assert arms == ["doing nothing", "warm start", "stage 1", *ARMS]
    assert all(set(outcome["images"]) == {"0", "1", "2", "3"} for outcome in record["outcomes"])
    assert "3 of the 4 rainy inputs were trained on" in text or "4 of the 4 rainy inputs" in text
    assert page.with_suffix(".md").read_text() in text and "<h2>Pictures</h2>" in page.read_text()


def test_equal_time_is_what_the_rewards_took(made: tuple[Request, str, Path]) -> None:
    record = json.loads(made[2].with_suffix(".json").read_text())
    by_arm = {outcome["arm"]: outcome for outcome in record["outcomes"] if outcome["seed"] == 0}
    ratio = by_arm["rewards"]["seconds"] / by_arm["continue"]["seconds"]
    assert by_arm["continue for equal time"]["steps"] == max(1, round(4 * ratio))
    assert by_arm["rewards"]["steps"] == by_arm["continue"]["steps"] == 4


def test_again_it_trains_nothing_and_says_the_same(
    made: tuple[Request, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request, text, page = made
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    before = json.loads(page.with_suffix(".json").read_text())["outcomes"]
    monkeypatch.setattr(stages, "_train", _untrained(stages._train))
    assert make_table(request)[0] == text
    assert json.loads(page.with_suffix(".json").read_text())["outcomes"] == before


def _untrained(train):
    def finished_only(stage, config, bundles, workdir, work):
        def none(folder, run):
            raise AssertionError(f"{stage} was trained again")

        return train(stage, config, bundles, workdir, none)

    return finished_only


def test_unknown_rows_and_arms_are_refused_with_the_known_ones(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="table ablation has no row x; it has rgsud"):
        make_table(Request("ablation", sets, tmp_path, rows=("x",)))
    with pytest.raises(ConfigError, match="table ablation has no arm y; it has rewards, rewards without L_re"):
        make_table(Request("ablation", sets, tmp_path, arms=("y",)))


def test_seconds_add_up_over_attempts_and_then_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 3.0, 10.0, 12.0, 20.0, 90.0])
    monkeypatch.setattr("time.process_time", lambda: next(ticks))
    file = tmp_path / "seconds.json"

    def stopped() -> None:
        raise Preempted("stopped")

    with pytest.raises(Preempted):
        timed(file, stopped)
    assert timed(file, lambda: "done") == ("done", 5.0)
    assert timed(file, lambda: "taken from the workdir") == ("taken from the workdir", 5.0)


@pytest.mark.integration
def test_stopped_it_leaves_nobody_behind_and_goes_on(sets: Path, tmp_path: Path) -> None:
    settings = [word for setting in (*SETTINGS, "training.steps=400") for word in ("--set", setting)]
    arguments = ["--data", str(sets), "--row", "rgsud", "--arm", "continue", "--jobs", "2", "--workdir", str(tmp_path)]
    command = [str(Path(sys.executable).with_name("rgsud")), "bench", "table", "plug-in", *arguments, *settings]
    process = subprocess.Popen(command, env={**os.environ, "RGSUD_TRACKING": "off"}, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while len(list(tmp_path.glob("stages/recycle-*/warm_start.safetensors"))) < 2:
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert "stopped; the same command goes on from here" in process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert not psutil.wait_procs(workers, timeout=20)[1], "trainings went on"
    assert not (tmp_path / "tables" / "plug-in.json").exists()
    subprocess.run(command, env={**os.environ, "RGSUD_TRACKING": "off"}, check=True, timeout=250)
    outcomes = json.loads((tmp_path / "tables" / "plug-in.json").read_text())["outcomes"]
    assert [(each["seed"], each["arm"]) for each in outcomes if each["steps"]] == [(0, "continue"), (1, "continue")]
