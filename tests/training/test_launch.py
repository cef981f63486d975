"""How many processes a stage gets, and what is said when one of them fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from rgsud_lib.config import load_config
from rgsud_lib.errors import ConfigError, Preempted
from rgsud_lib.stages import TRAINING
from rgsud_lib.task import StageFailure
from rgsud_lib.training.launch import _reason, count_processes


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are eight."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


def test_auto_takes_the_gpus_that_divide_the_batches(gpus):
    config = load_config("paper", ["training.batch=16", "warm_start.batch=12"])
    assert count_processes(config, "recycle") == 8
    warm = load_config("paper", ["training.batch=16", "warm_start.batch=12", "warm_start.enabled=true"])
    assert (count_processes(warm, "recycle"), count_processes(warm, "reinforce")) == (4, 8)
    assert count_processes(load_config("paper", ["training.batch=7"]), "recycle") == 7


def test_a_cpu_is_one_device_unless_more_are_asked_for():
    base = ["training.device=cpu", "training.batch=6"]
    assert count_processes(load_config("paper", base), "recycle") == 1
    assert count_processes(load_config("paper", [*base, "training.devices=3"]), "recycle") == 3


def test_devices_that_are_not_there_or_do_not_divide_the_batch_are_refused(gpus):
    with pytest.raises(ConfigError, match="training.devices=9, but torch sees 8 GPUs; use auto"):
        count_processes(load_config("paper", ["training.devices=9", "training.batch=9"]), "recycle")
    with pytest.raises(ConfigError, match=r"training.batch=4 cannot be divided among training.devices=3"):
        count_processes(load_config("paper", ["training.devices=3"]), "recycle")
    with pytest.raises(ConfigError, match="training.devices='two': expected auto or a number of at least 1"):
        load_config("paper", ["training.devices=two"])


def test_a_result_is_resumed_on_any_number_of_devices():
    one, many = load_config("cpu"), load_config("cpu", ["training.devices=2", "training.nodes=3"])
    assert one.digest() == many.digest() and one.digest(*TRAINING) == many.digest(*TRAINING)
    assert one.digest() != load_config("cpu", ["training.batch=2"]).digest()


def failed(folder: Path, *ranks: int, **reports: tuple[int, str]) -> Exception:
    """The reason where these ranks failed and some left (exit code, message), the earliest first."""
    for rank, (code, message) in reports.items():
        path = folder / f"failure-{rank[1:]}.json"
        path.write_text(json.dumps({"stage": "recycle", "exit_code": code, "message": message}))
    failures = {rank: ProcessFailure(rank, 1, -9, "") for rank in ranks}
    return _reason(folder, ChildFailedError("python", failures))


def test_what_failed_first_is_the_reason(tmp_path):
    reason = failed(tmp_path, 0, 1, r0=(2, "the pool is gone"), r1=(1, "Connection closed by peer"))
    assert isinstance(reason, StageFailure) and (str(reason), reason.exit_code) == ("the pool is gone", 2)


def test_a_process_that_could_say_nothing_is_the_reason(tmp_path):
    reason = failed(tmp_path, 0, 1, r0=(1, "Connection closed by peer"))
    assert str(reason) == "process 1 was killed by signal 9 (9: out of memory?); the same command resumes"


def test_processes_that_stopped_on_sigterm_did_not_fail(tmp_path):
    reason = failed(tmp_path, 0, 1, r0=(143, "saved at step 3"), r1=(143, "saved at step 3"))
    assert isinstance(reason, Preempted) and str(reason) == "saved at step 3"
    reason = failed(tmp_path, 0, 1, r1=(1, "lost the network"))
    assert isinstance(reason, StageFailure) and str(reason) == "lost the network"
