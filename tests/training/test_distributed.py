"""Two processes that share each batch: equal to one process, whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from rgsud_lib import stages
from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, parse_config
from rgsud_lib.errors import Preempted
from rgsud_lib.files import CHECKPOINT
from rgsud_lib.task import StageFailure
from rgsud_lib.tracking import StageRun
from rgsud_lib.training import checkpoint
from rgsud_lib.training.curves import read_log
from rgsud_lib.training.run import train_recycle, train_reinforce

from .test_run import contents

# All that looks across a batch or draws from it is on. Off is the achromatic loss: it starts at the kink of an L1,
# where the gradient is the sign of a rounding error, so that even one process with another convolution differs.
SHARED = {
    "training": {"batch": 4},
    "warm_start": {"batch": 4},
    "method": {"discriminator_fake": "same_scene", "clean_share": 0.2, "rain_jitter": 0.3, "achromatic_weight": 0.0},
    "reward": {"candidates": ["mirror", "blend"], "guard": 1.0},
}


@pytest.fixture(scope="module")
def shared(tiny) -> Config:
    tree = tiny.model_dump()
    return parse_config(tree | {section: tree[section] | changes for section, changes in SHARED.items()})


@pytest.fixture(scope="module")
def one(shared, dataset, tmp_path_factory) -> Path:
    """Both stages by one process."""
    root = tmp_path_factory.mktemp("one")
    for name in ("recycled", "reinforced"):
        (root / name).mkdir()
    train_recycle(shared, dataset, root / "recycled", StageRun())
    seal(root / "recycled", "recycled", "test")
    train_reinforce(shared, dataset, root / "recycled", root / "reinforced", StageRun())
    return root


@pytest.fixture(scope="module")
def two(shared, dataset, tmp_path_factory) -> Path:
    """Both stages by two, and what `ranks.py` does besides."""
    root = tmp_path_factory.mktemp("two")
    finish(ranks(shared, dataset, root, "--standalone", "--nproc-per-node=2"))
    return root


def ranks(config: Config, dataset: Path, root: Path, *how: str) -> subprocess.Popen[str]:
    """`ranks.py` by a torchrun of its own, which works in `root`."""
    (root / "config.json").write_text(config.model_dump_json())
    script = Path(__file__).with_name("ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", *how, script, dataset, root, root / "config.json"]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-4000:]


def seen(root: Path) -> list[dict[str, str]]:
    return [json.loads((root / f"seen-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("stage", ["recycled", "reinforced"])
def test_two_processes_learn_what_one_learns_from_the_same_batches(stage, one, two):
    alone, together = (load_file(root / stage / "networks.safetensors") for root in (one, two))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    rows = zip(read_log(one / stage / "log.jsonl"), read_log(two / stage / "log.jsonl"), strict=True)
    for expected, row in rows:
        assert row.pop("phase") == expected.pop("phase")
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-6), expected["step"]


@pytest.mark.parametrize("stage", ["recycled", "reinforced"])
def test_the_pool_is_merged_without_loss(stage, one, two):
    alone, together = (json.loads((root / stage / "pool" / "index.json").read_text()) for root in (one, two))
    assert together["entries"].keys() == alone["entries"].keys()
    for name, entry in together["entries"].items():
        expected = alone["entries"][name]
        exact = {field: value for field, value in entry.items() if not isinstance(value, float) and field != "file"}
        assert exact == {field: expected[field] for field in exact}
        for score in ("score", "first_score"):
            assert entry[score] == pytest.approx(expected[score], abs=1e-4)
        assert (two / stage / "pool" / entry["file"]).is_file()
    assert len(list((two / stage / "pool").glob("*.png"))) == len(together["entries"])


def test_killed_and_resumed_equals_undisturbed(two):
    assert [rank["killed"] for rank in seen(two)] == ["Killed: "] * 2
    assert contents(two / "killed") == contents(two / "recycled")


def test_sigterm_to_one_process_stops_both_at_the_same_step(two):
    messages = {rank["terminated"] for rank in seen(two)}
    assert messages == {"Preempted: SIGTERM at step 3 of recycle: the state is saved; the same command resumes"}
    assert contents(two / "terminated") == contents(two / "recycled")


def test_a_gradient_that_one_process_finds_not_finite_is_skipped_by_both(two):
    rows = read_log(two / "poisoned" / "log.jsonl")
    assert sum(row.get("skipped_updates", 0) for row in rows) == 1
    assert all(torch.isfinite(value).all() for value in load_file(two / "poisoned" / "networks.safetensors").values())


@pytest.mark.integration
def test_two_machines_need_no_common_disk(shared, dataset, two, tmp_path):
    """The second machine keeps its copy of the pool elsewhere, and on a resume gets it from the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "--master-addr=127.0.0.1", f"--master-port={free.getsockname()[1]}"
    machines = [ranks(shared, dataset, tmp_path, "--nnodes=2", f"--node-rank={node}", *address) for node in range(2)]
    for machine in machines:
        finish(machine)
    for name in ("recycled", "reinforced", "killed", "terminated"):
        assert contents(tmp_path / name) == contents(two / name)


@pytest.mark.integration
def test_launched_processes_are_stopped_killed_and_resumed(shared, dataset, two, tmp_path, monkeypatch):
    """The stage's own way: by the launcher, each time disturbed as soon as there is a new checkpoint."""
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    config = parse_config(shared.model_dump() | {"training": shared.training.model_dump() | {"devices": 2}})
    for disturb, error, words in (
        (lambda: os.kill(os.getpid(), signal.SIGTERM), Preempted, "SIGTERM in recycle: the state is saved"),
        (lambda: os.kill(worker(rank=1), signal.SIGKILL), StageFailure, "process 1 was killed by signal 9"),
    ):
        with at_next_checkpoint(tmp_path, disturb), pytest.raises(error, match=words):
            stages.recycle(config, dataset, tmp_path)
    folder = stages.recycle(config, dataset, tmp_path)
    assert contents(folder) | {".lock": b""} == contents(two / "recycled") | {".lock": b""}
    assert stages.recycle(shared, dataset, tmp_path) == folder  # by one process: the same stage, finished before


@contextmanager
def at_next_checkpoint(workdir: Path, disturb: Callable[[], object]) -> Iterator[None]:
    """Call `disturb` once a checkpoint is there that was not there before."""

    def markers() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in workdir.glob(f"stages/*/{CHECKPOINT}/{checkpoint.MARKER}")}

    def watch() -> None:
        while markers() == before:
            time.sleep(0.005)
        disturb()

    before = markers()
    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


def worker(rank: int) -> int:
    """The process id of a launched worker."""
    found = (child for child in psutil.Process().children(recursive=True))
    return next(child.pid for child in found if child.environ().get("RANK") == str(rank))


def test_a_batch_that_cannot_be_divided_is_a_clear_error(two):
    expected = "ConfigError: a batch of 3 cannot be divided among 2 processes; change training.batch"
    assert all(rank["odd"].startswith(expected) for rank in seen(two))
