"""Both stages end to end at a tiny size: what they leave, and that a killed run equals one that never was."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, parse_config
from rgsud_lib.errors import BundleError, ConfigError, Preempted, TrainingError
from rgsud_lib.files import CHECKPOINT
from rgsud_lib.tracking import StageRun
from rgsud_lib.training import checkpoint
from rgsud_lib.training.curves import read_log
from rgsud_lib.training.phase import Phase, cosine
from rgsud_lib.training.run import train_recycle, train_reinforce
from rgsud_lib.training.trainer import MAX_SKIPPED, Trainer


class Killed(BaseException):
    """Stands for kill -9: nothing in the code under test may catch it."""


def recycle(config: Config, dataset: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train_recycle(config, dataset, folder, StageRun())
    return folder


def reinforce(config: Config, dataset: Path, recycled: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train_reinforce(config, dataset, recycled, folder, StageRun())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All that the bundle will hold."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and CHECKPOINT not in path.parts and path.name != "bundle.json"
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_at(monkeypatch: pytest.MonkeyPatch, call: int, owner: object, name: str) -> None:
    """Die in the `call`-th call of a function."""
    calls, original = 0, getattr(owner, name)

    def dying(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, dying)


@pytest.fixture(scope="module")
def recycled(tiny, dataset, tmp_path_factory) -> Path:
    folder = recycle(tiny, dataset, tmp_path_factory.mktemp("undisturbed") / "recycled")
    seal(folder, "recycled", "test")
    return folder


@pytest.fixture(scope="module")
def reinforced(tiny, dataset, recycled, tmp_path_factory) -> Path:
    return reinforce(tiny, dataset, recycled, tmp_path_factory.mktemp("undisturbed") / "reinforced")


def test_stage_1_leaves_weights_pool_log_and_grids(recycled, dataset):
    index = json.loads((recycled / "pool" / "index.json").read_text())
    manifest = json.loads((dataset / "manifest.json").read_text())
    trained_on = {image["id"] for image in manifest["images"] if image["role"] == "rainy" and image["split"] == "train"}
    assert set(index["entries"]) == trained_on
    assert all((recycled / "pool" / entry["file"]).is_file() for entry in index["entries"].values())
    assert {"derainer.safetensors", "warm_start.safetensors", "networks.safetensors", "log.jsonl"} <= set(
        contents(recycled)
    )
    assert list((recycled / "grids").glob("*.png"))


def test_the_log_has_each_step_once_and_what_people_watch(recycled):
    rows = read_log(recycled / "log.jsonl")
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] == 14
    last = rows[-1]
    assert {
        "loss/derain",
        "loss/adversarial",
        "loss/discriminator",
        "learning_rate",
        "pool/score_mean",
        "pool/acceptance_rate",
        "validation/psnr_rgb",
    } <= set(last)


def test_stage_2_starts_from_stage_1_and_logs_the_self_reinforced_loss(reinforced):
    rows = read_log(reinforced / "log.jsonl")
    assert all("loss/self_reinforced" in row for row in rows)


def test_the_pool_never_gets_worse_in_stage_2(recycled, reinforced):
    before, after = (
        json.loads((folder / "pool" / "index.json").read_text())["entries"] for folder in (recycled, reinforced)
    )
    assert all(after[name]["score"] >= before[name]["score"] for name in before)


def test_only_the_degradation_unet_rests_in_stage_2(recycled, reinforced):
    before, after = load_file(recycled / "networks.safetensors"), load_file(reinforced / "networks.safetensors")
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"derainer", "generator", "discriminator"}


@pytest.mark.parametrize("call", [2, 5, 9, 13])
def test_killed_in_stage_1_and_resumed_equals_undisturbed(call, tiny, dataset, recycled, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, call, Trainer, "_train_step")
        recycle(tiny, dataset, tmp_path)
    assert contents(recycle(tiny, dataset, tmp_path)) == contents(recycled)


@pytest.mark.parametrize("call", [2, 7])
def test_killed_in_stage_2_and_resumed_equals_undisturbed(
    call, tiny, dataset, recycled, reinforced, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, call, Trainer, "_train_step")
        reinforce(tiny, dataset, recycled, tmp_path)
    assert contents(reinforce(tiny, dataset, recycled, tmp_path)) == contents(reinforced)


@pytest.mark.parametrize("call", range(1, 9, 2))
def test_killed_in_the_middle_of_a_save_and_resumed_equals_undisturbed(
    call, tiny, dataset, recycled, tmp_path, monkeypatch
):
    """Files are replaced for pooled pictures, checkpoints and their markers: die before each kind of them."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, call, os, "replace")
        recycle(tiny, dataset, tmp_path)
    assert contents(recycle(tiny, dataset, tmp_path)) == contents(recycled)


def test_sigterm_saves_stops_and_resumes(tiny, dataset, recycled, tmp_path, monkeypatch):
    original = Trainer._train_step

    def terminated(self, phase, batch, rate):
        original(self, phase, batch, rate)
        if phase.name == "recycle" and self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", terminated)
        with pytest.raises(Preempted, match="step 4 of recycle"):
            recycle(tiny, dataset, tmp_path)
    assert checkpoint.load_checkpoint(tmp_path)["step"] == 4
    assert contents(recycle(tiny, dataset, tmp_path)) == contents(recycled)


def test_a_full_disk_leaves_the_checkpoint_before_it_usable(tiny, dataset, recycled, tmp_path, monkeypatch):
    calls, original = 0, os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise OSError(28, "No space left on device")
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            recycle(tiny, dataset, tmp_path)
    assert not list(tmp_path.rglob("*.partial"))
    assert contents(recycle(tiny, dataset, tmp_path)) == contents(recycled)


def test_a_flipped_byte_in_a_checkpoint_is_refused(tiny, dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 5, Trainer, "_train_step")
        recycle(tiny, dataset, tmp_path)
    path = next((tmp_path / CHECKPOINT).glob("*.pt"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="was altered after it was written"):
        recycle(tiny, dataset, tmp_path)


def test_a_non_finite_step_never_reaches_the_weights(tiny, dataset, tmp_path, monkeypatch):
    original, seen = Trainer._update, []

    def poisoned(self, name, losses):
        if self.step == 2 and name == "derainer" and self.phase_name == "warm_start":
            before = {key: value.clone() for key, value in self.method.derainer.state_dict().items()}
            finite = original(self, name, {key: value * float("nan") for key, value in losses.items()})
            seen.append(
                (
                    finite,
                    all(torch.equal(before[key], value) for key, value in self.method.derainer.state_dict().items()),
                )
            )
            return finite
        return original(self, name, losses)

    monkeypatch.setattr(Trainer, "_update", poisoned)
    recycle(tiny, dataset, tmp_path)
    assert seen == [(False, True)]
    assert sum(row.get("skipped_updates", 0) for row in read_log(tmp_path / "log.jsonl")) == 1
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "networks.safetensors").values())


def test_training_gives_up_after_many_non_finite_steps(tiny, dataset, tmp_path, monkeypatch):
    original = Trainer._update
    monkeypatch.setattr(
        Trainer,
        "_update",
        lambda self, name, losses: original(self, name, {key: value * float("inf") for key, value in losses.items()}),
    )
    longer = parse_config(tiny.model_dump() | {"warm_start": tiny.warm_start.model_dump() | {"steps": MAX_SKIPPED + 5}})
    with pytest.raises(TrainingError, match=f"{MAX_SKIPPED} steps in a row"):
        recycle(longer, dataset, tmp_path)


@pytest.mark.parametrize("source", ["last", "none"])
def test_the_controls_of_self_reinforcement(source, tiny, dataset, recycled, tmp_path):
    config = parse_config(tiny.model_dump() | {"reinforcement": tiny.reinforcement.model_dump() | {"source": source}})
    rows = read_log(reinforce(config, dataset, recycled, tmp_path) / "log.jsonl")
    assert ("loss/self_reinforced" in rows[-1]) == (source == "last")
    if source == "last":
        entries = json.loads((tmp_path / "pool" / "index.json").read_text())["entries"].values()
        assert all(entry["step"] > 0 for entry in entries)  # stage 1 left none at or after this stage's start


def with_reward(config: Config, reinforcement: dict[str, object], **reward: object) -> Config:
    document = config.model_dump()
    return parse_config(
        document | {"reward": document["reward"] | reward, "reinforcement": document["reinforcement"] | reinforcement}
    )


def test_every_acceptance_policy_survives_a_kill(tiny, dataset, tmp_path, monkeypatch):
    policies = {"warm_up": 2, "margin": 1e-4, "max_age": 2, "candidates": ("plain", "blend")}
    config = with_reward(tiny, {}, **policies)
    undisturbed = reinforce(config, dataset, recycle(config, dataset, tmp_path / "1"), tmp_path / "2")
    for call, stage in ((10, "1"), (4, "2")):
        folder = tmp_path / f"killed {stage}"
        train = recycle if stage == "1" else lambda *inputs: reinforce(*inputs[:2], tmp_path / "1", inputs[2])
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, call, Trainer, "_train_step")
            train(config, dataset, folder)
        expected = contents(tmp_path / "1" if stage == "1" else undisturbed)
        assert contents(train(config, dataset, folder)) == expected


def test_stage_1_scores_nothing_before_its_warm_up_is_over(tiny, dataset, tmp_path):
    rows = read_log(recycle(with_reward(tiny, {}, warm_up=6), dataset, tmp_path) / "log.jsonl")
    filled = {row["step"] - tiny.warm_start.steps: row.get("pool/filled", 0) for row in rows}
    assert filled[4] == filled[6] == 0 < filled[8]


def test_stage_2_scores_the_pool_of_another_scorer_again_where_asked(tiny, dataset, recycled, tmp_path):
    with pytest.raises(BundleError, match=r"reinforcement\.rescore=true"):
        reinforce(with_reward(tiny, {}, scorer="decorrelation"), dataset, recycled, tmp_path / "refused")
    config = with_reward(tiny, {"rescore": True}, scorer="decorrelation")
    index = json.loads((reinforce(config, dataset, recycled, tmp_path / "again") / "pool" / "index.json").read_text())
    before = json.loads((recycled / "pool" / "index.json").read_text())
    assert index["scorer"] == "decorrelation" and set(index["entries"]) == set(before["entries"])
    assert all(-1 <= entry["first_score"] <= 1 for entry in index["entries"].values())  # a correlation, no rain layer


def test_another_configuration_does_not_resume_this_checkpoint(tiny, dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 5, Trainer, "_train_step")
        recycle(tiny, dataset, tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    with pytest.raises(BundleError, match="another configuration or dataset"):
        recycle(tiny, dataset, tmp_path / "two")


def test_a_gpu_that_is_not_there_is_a_clear_error(tiny, dataset, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = parse_config(tiny.model_dump() | {"training": tiny.training.model_dump() | {"device": "cuda"}})
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        recycle(config, dataset, tmp_path)


def test_the_schedule_is_a_pure_function_of_the_step():
    phase = Phase("recycle", 101, 1e-3, 1e-5, recycles=True, rewards=False)
    rates = [cosine(phase, step) for step in range(101)]
    assert rates[0] == 1e-3 and rates[-1] == pytest.approx(1e-5)
    assert rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates == sorted(rates, reverse=True)
