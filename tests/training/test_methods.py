"""The other methods through the one loop: both stages, killed and resumed, and what is not theirs refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, load_config
from rgsud_lib.errors import BundleError
from rgsud_lib.methods import METHODS
from rgsud_lib.training.curves import read_log
from rgsud_lib.training.run import _load_networks as load_networks
from rgsud_lib.training.trainer import Trainer

from .conftest import TINY
from .test_run import Killed, contents, kill_at, recycle, reinforce

SHORT = """
warm_start.steps=2 training.steps=4 reinforcement.steps=4 training.checkpoint_every=2 training.validate_every=4
method.dcdgan.encoder_width=4 method.dcdgan.features=8
method.derain_cyclegan.attention_width=4 method.derain_cyclegan.attention_passes=2
method.nlcl.encoder_width=4 method.nlcl.features=8
"""
OTHERS = sorted(set(METHODS) - {"rgsud"})  # test_run.py is about RGSUD


def configured(name: str, *settings: str) -> Config:
    return load_config("cpu", [*TINY.split(), *SHORT.split(), f"method.name={name}", *settings])


@pytest.fixture(scope="module", params=OTHERS)
def trained(request, dataset, tmp_path_factory) -> tuple[Config, Path, Path]:
    """A method's configuration, stage 1 and stage 2, undisturbed."""
    config, root = configured(request.param), tmp_path_factory.mktemp(request.param)
    recycled = recycle(config, dataset, root / "recycled")
    seal(recycled, "recycled", "test")
    return config, recycled, reinforce(config, dataset, recycled, root / "reinforced")


def test_rewards_fill_the_pool_in_stage_1_and_pull_in_stage_2(trained):
    _, recycled, reinforced = trained
    assert json.loads((recycled / "pool" / "index.json").read_text())["entries"]
    assert all("loss/self_reinforced" not in row for row in read_log(recycled / "log.jsonl"))
    assert all("loss/self_reinforced" in row for row in read_log(reinforced / "log.jsonl"))


def test_killed_and_resumed_equals_undisturbed(trained, dataset, tmp_path, monkeypatch):
    config, recycled, reinforced = trained
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 6, Trainer, "_train_step")
        recycle(config, dataset, tmp_path / "1")
    assert contents(recycle(config, dataset, tmp_path / "1")) == contents(recycled)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 4, Trainer, "_train_step")
        reinforce(config, dataset, recycled, tmp_path / "2")
    assert contents(reinforce(config, dataset, recycled, tmp_path / "2")) == contents(reinforced)


@pytest.mark.parametrize("trained", ["csud"], indirect=True)
@pytest.mark.parametrize("source", ["last", "none"])
def test_the_controls_of_self_reinforcement(source, trained, dataset, tmp_path):
    config, recycled, _ = trained
    config = configured(config.method.name, f"reinforcement.source={source}")
    rows = read_log(reinforce(config, dataset, recycled, tmp_path) / "log.jsonl")
    assert rows and all(("loss/self_reinforced" in row) == (source == "last") for row in rows)


@pytest.mark.parametrize("trained", ["csud"], indirect=True)
def test_networks_of_another_method_are_refused_by_name(trained, dataset, tmp_path):
    config, recycled, _ = trained
    with pytest.raises(BundleError, match=f"of method '{config.method.name}', this configuration's is 'rgsud'"):
        reinforce(configured("rgsud"), dataset, recycled, tmp_path)


def test_networks_from_before_methods_had_names_are_rgsuds(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "networks.safetensors")
    with pytest.raises(BundleError, match="of method 'rgsud', this configuration's is 'csud'"):
        load_networks(SimpleNamespace(config=configured("csud")), tmp_path)


def test_a_checkpoint_of_another_method_is_refused_by_name(dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 6, Trainer, "_train_step")
        recycle(configured("cyclegan"), dataset, tmp_path)
    with pytest.raises(BundleError, match="checkpoint in .* is of method 'cyclegan', this configuration's is 'csud'"):
        recycle(configured("csud"), dataset, tmp_path)
