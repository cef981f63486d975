"""A stage whose workdir is in S3, preempted or killed on one machine, ends on another as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rgsud_lib import stages
from rgsud_lib.bundle import open_bundle
from rgsud_lib.errors import DataError, Preempted
from rgsud_lib.storage import snapshots, transfer
from rgsud_lib.storage.remote import local_root, pulled
from rgsud_lib.training import trainer


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")


@pytest.fixture(scope="module")
def undisturbed(tiny, dataset, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RGSUD_TRACKING", "off")
        return stages.recycle(tiny, dataset, tmp_path_factory.mktemp("undisturbed"))


def at_save(monkeypatch: pytest.MonkeyPatch, number: int, action) -> None:
    """Do something right after the `number`-th checkpoint was shared."""
    share, count = snapshots.share, iter(range(1, 100))

    def sharing(folder: Path) -> None:
        share(folder)
        if next(count) == number:
            action()

    monkeypatch.setattr(trainer, "share", sharing)


def checkpoints(bucket: str) -> list[str]:
    return [file.name for file in transfer.list_objects(bucket) if ".checkpoint/" in file.name]


@pytest.mark.parametrize("save", [1, 3])
def test_sigterm_on_one_machine_and_the_rest_on_another(
    tiny, dataset, undisturbed, s3_bucket: str, monkeypatch, tmp_path: Path, save: int
) -> None:
    with monkeypatch.context() as patch:
        at_save(patch, save, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            stages.recycle(tiny, dataset, s3_bucket)
    assert checkpoints(s3_bucket)
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "another-node"))
    address = stages.recycle(tiny, dataset, s3_bucket)
    assert address.startswith(f"{s3_bucket}/stages/recycle-")
    assert open_bundle(pulled(address)).files == open_bundle(undisturbed).files
    assert checkpoints(s3_bucket) == []


def test_killed_while_a_checkpoint_is_sent(tiny, dataset, undisturbed, s3_bucket: str, monkeypatch, tmp_path) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        at_save(patch, 2, lambda: patch.setattr(transfer, "write", kill))
        with pytest.raises(Killed):
            stages.recycle(tiny, dataset, s3_bucket)
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "another-node"))
    assert open_bundle(pulled(stages.recycle(tiny, dataset, s3_bucket))).files == open_bundle(undisturbed).files


def test_a_server_that_is_away_at_checkpoints_does_not_stop_training(
    tiny, dataset, undisturbed, s3_bucket: str, monkeypatch, caplog
) -> None:
    with monkeypatch.context() as patch:
        away = iter([True, True])

        def upload(*arguments: object) -> str:
            if next(away, False):
                raise DataError("cannot be reached")
            return original(*arguments)

        original = transfer.upload
        patch.setattr(transfer, "upload", upload)
        address = stages.recycle(tiny, dataset, s3_bucket)
    assert "the checkpoint could not be sent, training goes on: cannot be reached" in caplog.text
    assert open_bundle(pulled(address)).files == open_bundle(undisturbed).files


def test_each_workdir_in_s3_has_its_own_folder_here(s3_bucket: str, tmp_path: Path) -> None:
    assert local_root(f"{s3_bucket}/a") == local_root(f"{s3_bucket}/a/") != local_root(f"{s3_bucket}/b")
    assert local_root(tmp_path) == tmp_path
