"""Snapshots of a stage's folder: always whole, whoever else writes to the same stage, and never a step back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from rgsud_lib.errors import BundleError
from rgsud_lib.files import CHECKPOINT
from rgsud_lib.storage import snapshots, transfer
from rgsud_lib.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def address(s3_bucket: str) -> str:
    return f"{s3_bucket}/stages/x"


@pytest.fixture
def machine(address: str, tmp_path: Path):
    """The folder of a machine by this name, at the last snapshot."""

    def begin(name: str) -> Path:
        snapshots.restore(address, tmp_path / name)
        return tmp_path / name

    return begin


def train(folder: Path, updates: int, pool: str) -> None:
    """What training leaves in a folder: a checkpoint, and a pool of one file a letter."""
    save_checkpoint(folder, {"phase": "recycle", "step": updates, "ema_updates": updates})
    (folder / "pool").mkdir(exist_ok=True)
    for path in (folder / "pool").iterdir():
        path.unlink()
    for name in pool:
        (folder / "pool" / name).write_text(name)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != snapshots.HOME
    }


def objects(address: str) -> set[str]:
    return {file.address for file in transfer.list_objects(address) if file.address != f"{address}/{snapshots.POINTER}"}


def test_only_what_is_new_is_sent_and_what_is_old_goes(address: str, machine, monkeypatch) -> None:
    folder = machine("a")
    train(folder, 1, "ab")
    snapshots.share(folder)
    first = objects(address)
    sent: list[str] = []
    original = transfer.upload
    monkeypatch.setattr(transfer, "upload", lambda path, *rest: (sent.append(path.name), original(path, *rest))[1])
    train(folder, 2, "bc")
    snapshots.share(folder)
    assert sorted(sent) == ["c", "latest.json", "recycle-00000002.pt"]
    assert len(first) == len(objects(address)) == 4 and len(objects(address) & first) == 1, "only b stays"
    assert contents(machine("elsewhere")) == contents(folder)
    snapshots.forget(address)
    assert list(transfer.list_objects(address)) == []


def test_a_folder_without_a_home_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    snapshots.share(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_machines_on_one_stage_leave_a_whole_snapshot_after_each_step(address: str, machine) -> None:
    first = machine("first")
    train(first, 1, "ab")
    snapshots.share(first)
    second = machine("second")
    train(first, 2, "bc")
    snapshots.share(first)  # removes a
    train(second, 2, "ad")  # which the second still has
    snapshots.share(second)
    assert contents(machine("third")) == contents(second)
    dice = random.Random(0)
    for number in range(3, 15):
        folder = dice.choice([first, second])
        train(folder, number, "".join(dice.sample("abcdef", 3)))
        snapshots.share(folder)
        assert contents(machine(f"another-{number}")) == contents(folder)
    assert len(objects(address)) == 2 * 5, "each keeps its last snapshot: the state, its marker and three images"


def test_a_writer_killed_while_it_removes_what_is_old_knows_what_is_there(address: str, machine, monkeypatch) -> None:
    folder = machine("a")
    train(folder, 1, "ab")
    snapshots.share(folder)
    train(folder, 2, "b")
    remove = transfer.delete

    def die(old: Iterable[str]) -> None:
        remove(old)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(transfer, "delete", die)
        snapshots.share(folder)
    assert machine("a") == folder
    train(folder, 3, "ab")
    snapshots.share(folder)
    assert contents(machine("b")) == contents(folder)


def test_the_later_checkpoint_is_kept(address: str, machine) -> None:
    here, there = machine("here"), machine("there")
    train(here, 1, "a")
    snapshots.share(here)
    train(here, 2, "ab")  # S3 was away, and then the process was killed
    before = contents(here)
    assert contents(machine("here")) == before and load_checkpoint(here)["step"] == 2
    snapshots.share(here)
    assert contents(machine("there")) == before
    train(there, 3, "c")
    snapshots.share(there)
    assert contents(machine("here")) == contents(there), "the other has overtaken this one"
    train(here, 4, "cd")
    snapshots.share(here)
    assert contents(machine("anew")) == contents(here)


def test_a_snapshot_that_is_replaced_while_it_is_fetched(address: str, machine, monkeypatch) -> None:
    folder = machine("a")
    train(folder, 1, "abc")
    snapshots.share(folder)
    download, again = transfer.download, iter([True])

    def replace(*arguments: object) -> None:
        if next(again, False):
            train(folder, 2, "def")
            snapshots.share(folder)
        download(*arguments)

    monkeypatch.setattr(transfer, "THREADS", 1)
    monkeypatch.setattr(transfer, "download", replace)
    assert contents(machine("b")) == contents(folder)


def test_a_snapshot_that_lost_an_object_is_a_warning_and_is_replaced_by_the_next(address, machine, caplog) -> None:
    folder = machine("a")
    train(folder, 1, "a")
    snapshots.share(folder)
    transfer.delete([next(iter(objects(address)))])
    anew = machine("b")
    assert contents(anew) == {} and not list(anew.parent.glob("*.partial"))
    assert "b: the checkpoint in S3 is not whole and is not used" in caplog.text
    train(anew, 1, "a")
    snapshots.share(anew)
    assert contents(machine("c")) == contents(anew)


@pytest.mark.parametrize("change", [
    {"files": []}, {"updates": "3"}, {"writer": None}, {"more": 1}, {"files": {"../evil": "0"}}, {"writer": ".."},
])  # fmt: skip
def test_a_pointer_that_makes_no_sense_is_refused(address: str, machine, change: dict, tmp_path: Path) -> None:
    good = {"writer": "w", "updates": 3, "files": {}}
    transfer.write(f"{address}/{CHECKPOINT}/snapshot.json", json.dumps(good | change).encode())
    with pytest.raises(BundleError, match="cannot be read .* to begin the stage again|refused to write"):
        machine("a")
    assert not (tmp_path / "a").exists()
