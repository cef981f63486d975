"""Shards are tars of bounded size, and no name in an index leaves its folder."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from rgsud_lib.errors import BundleError
from rgsud_lib.storage import shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "from" / "images").mkdir(parents=True)
    for number in range(20):
        (tmp_path / "from" / "images" / f"{number:02d}{'x' * 10 * number}.png").write_bytes(os.urandom(300 * number))
    return tmp_path / "from"


def sizes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_no_shard_is_larger_than_asked_and_each_is_an_ordinary_tar(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 40_960)
    groups = shards.plan(sizes(folder))
    assert len(groups) > 1 and sorted(name for group in groups for name in group) == sorted(sizes(folder))
    (tmp_path / "to").mkdir()
    for number, group in enumerate(groups):
        shard = tmp_path / f"{number}.tar"
        places = shards.pack(folder, group, shard)
        assert shard.stat().st_size <= 40_960
        with tarfile.open(shard) as tar:
            assert tar.getnames() == group
        shards.unpack(shard, places, tmp_path / "to")
    assert all((tmp_path / "to" / name).read_bytes() == (folder / name).read_bytes() for name in sizes(folder))


def test_equal_files_make_equal_shards(folder: Path, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        shards.pack(folder, sorted(sizes(folder)), tmp_path / name)
        for path in folder.rglob("*.png"):
            os.utime(path, (1, 1))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", ".", "a\\..\\x", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "shard").write_bytes(b"x" * 100)
    (tmp_path / "to").mkdir()
    with pytest.raises(BundleError, match="refused to write"):
        shards.unpack(tmp_path / "shard", {name: (0, 1)}, tmp_path / "to")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["shard", "to"]


def test_a_shard_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"x" * 100)
    with pytest.raises(BundleError, match="shard is too short for a"):
        shards.unpack(tmp_path / "shard", {"a": (90, 20)}, tmp_path)
