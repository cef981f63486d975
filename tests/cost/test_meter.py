"""A stage's clock over attempts that end well, fail, or are killed without a word; here and in S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from rgsud_lib import stages
from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import digest_of, load_config
from rgsud_lib.cost import meter
from rgsud_lib.cost.meter import LAST_SAVE, Meter, machine
from rgsud_lib.cost.spent import Spent
from rgsud_lib.errors import DataError
from rgsud_lib.files import write_json
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import list_objects

CONFIG = load_config("demo", ["training.device=cpu"])
KILLED = """
import os, signal, sys, time
from pathlib import Path
from rgsud_lib.config import load_config
from rgsud_lib.cost import meter
meter.BEAT = 0.05
folder = Path(sys.argv[1])
with meter.Meter(str(folder), folder, load_config("demo")):
    time.sleep(0.3)
    (folder / ".checkpoint").mkdir()
    (folder / ".checkpoint" / "latest.json").touch()
    time.sleep(0.6)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    for name in ("RGSUD_GPUS", "RGSUD_POOL", "WORLD_SIZE", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_of_a_killed_attempt_what_came_after_its_last_save_is_lost(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert process.returncode == -signal.SIGKILL
    with Meter(str(tmp_path), tmp_path, CONFIG) as clock:
        (line,) = clock.spent()
    assert line["attempts"] == 2 and 0.7 <= line["seconds"] <= 2.5
    assert 0.4 <= line["lost"] <= 0.8, "0.6 s after the save, less a beat"
    clock.forget()
    assert not (tmp_path / ".attempts").exists()


def test_an_attempt_without_a_save_is_lost_whole_and_a_save_before_it_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / LAST_SAVE).parent.mkdir()
    (tmp_path / LAST_SAVE).touch()
    os.utime(tmp_path / LAST_SAVE, (1, 1))
    with pytest.raises(ZeroDivisionError), Meter(str(tmp_path), tmp_path, CONFIG):
        time.sleep(0.2)
        raise ZeroDivisionError
    (attempt,) = (Spent.parse(json.loads(path.read_text())) for path in (tmp_path / ".attempts").iterdir())
    assert attempt.lost == attempt.seconds >= 0.2


def test_attempts_meet_in_s3(s3_bucket: str, tmp_path: Path) -> None:
    place = f"{s3_bucket}/runs/stages/recycle-k"
    with pytest.raises(ZeroDivisionError), Meter(place, tmp_path / "machine1", CONFIG):
        raise ZeroDivisionError
    with Meter(place, tmp_path / "machine2", CONFIG) as clock:
        assert sum(line["attempts"] for line in clock.spent()) == 2
    clock.forget()
    assert list(list_objects(place)) == []


def test_a_server_that_is_away_costs_a_warning(tmp_path: Path, monkeypatch, caplog) -> None:
    def refuse(*arguments: object) -> None:
        raise DataError("unreachable")

    monkeypatch.setattr(transfer, "write", refuse)
    monkeypatch.setattr(meter, "list_objects", refuse)
    with Meter("s3://bucket/stages/recycle-k", tmp_path, CONFIG) as clock:
        assert [line["attempts"] for line in clock.spent()] == [1]
    assert "unreachable" in caplog.text


def test_a_machine_is_what_was_reserved(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(meter, "CGROUP_CPUS", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert machine(CONFIG) == {"device": "cpu", "gpus": 0, "cpus": 1, "pool": ""}
    monkeypatch.setenv("RGSUD_GPUS", "4")
    monkeypatch.setenv("RGSUD_POOL", "gpu-spot")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert machine(CONFIG) == {"device": "GPU", "gpus": 4, "cpus": 2, "pool": "gpu-spot"}


def _work(folder: Path, run: object) -> dict:
    write_json(folder / "weights.json", [1.0])
    return {"images": 3}


def test_a_stage_seals_its_cost_and_its_settings_and_neither_changes_a_digest(tmp_path: Path) -> None:
    def failing(folder: Path, run: object) -> dict:
        raise DataError("x")

    with pytest.raises(DataError):
        stages._stage("recycle", CONFIG, {"dataset": "d"}, tmp_path / "failed", failing)
    resumed, undisturbed = (
        open_bundle(stages._stage("recycle", CONFIG, {"dataset": "d"}, tmp_path / name, _work))
        for name in ("failed", "once")
    )
    assert [line["attempts"] for line in resumed.cost] == [2]
    assert [line["attempts"] for line in undisturbed.cost] == [1]
    assert digest_of(resumed.settings) == resumed.config_digest
    assert (resumed.digest, resumed.facts, resumed.files) == (undisturbed.digest, undisturbed.facts, undisturbed.files)
    assert not list(tmp_path.glob("*/stages/*/.attempts"))


def test_shards_that_were_put_together_leave_their_cost_to_the_stage(tmp_path: Path, mini_run, monkeypatch) -> None:
    from rgsud_lib.fan_out import Shard

    bundles = mini_run.dataset, mini_run.recycled, mini_run.reinforced
    monkeypatch.setattr("rgsud_lib.evaluation.evaluate.score_part", lambda *rest: _part(rest[-1]))
    monkeypatch.setattr("rgsud_lib.evaluation.evaluate.evaluate_models", lambda *rest: _evaluated(rest[4]))
    for index in range(2):
        stages.score(mini_run.config, *bundles, Shard(index, 2), tmp_path)
    place = stages.evaluate(mini_run.config, *bundles, tmp_path, shards=2)
    assert sum(line["attempts"] for line in open_bundle(Path(place)).cost) == 3


def _part(folder: Path) -> dict:
    write_json(folder / "scores.json", {"rows": [], "warnings": []})
    return {}


def _evaluated(folder: Path) -> dict:
    for name in ("report.html", "strip.png", "metrics.json", "per_image.csv"):
        (folder / name).touch()
    return {"metrics": {}}


def test_a_beat_while_torch_is_being_imported_does_no_harm(monkeypatch) -> None:
    half = ModuleType("torch")
    half.__spec__ = SimpleNamespace(_initializing=True)
    monkeypatch.setitem(sys.modules, "torch", half)
    assert machine(load_config("demo"))["device"] == "cpu"
