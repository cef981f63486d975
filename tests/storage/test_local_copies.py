"""Folders for who knows only folders: S3 copied in, results copied out."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgsud_lib.errors import DataError
from rgsud_lib.storage import transfer
from rgsud_lib.storage.local_copies import local_source, local_target


@pytest.fixture
def rain(s3_bucket: str) -> str:
    for name in ("a.png", "sub/b.JPG", "notes.txt"):
        transfer.write(f"{s3_bucket}/rain/{name}", name.encode())
    return f"{s3_bucket}/rain"


def test_images_come_with_their_folders_and_go_afterwards(rain: str) -> None:
    with local_source(rain) as folder:
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    assert found == {"a.png": b"a.png", "sub/b.JPG": b"sub/b.JPG"} and not folder.exists()
    with local_source(f"{rain}/sub/b.JPG") as file:
        assert (file.name, file.read_bytes()) == ("b.JPG", b"sub/b.JPG")
    with pytest.raises(DataError, match="nothing holds no images"), local_source(f"{rain}/nothing"):
        pass


def test_results_go_out_unless_something_is_there(rain: str) -> None:
    for target, name in ((f"{rain}-free", "/sub/b.png"), (f"{rain}/x.png", "")):
        with local_target(target, overwrite=False) as path:
            file = path / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"derained")
        assert transfer.read(f"{target}{name}") == b"derained"
        with pytest.raises(DataError, match="is not empty; choose another target"), local_target(target, False):
            pass
        with local_target(target, overwrite=True):
            pass


def test_what_was_finished_before_a_failure_stays(s3_bucket: str) -> None:
    with pytest.raises(ZeroDivisionError), local_target(f"{s3_bucket}/out", False) as path:
        path.mkdir()
        (path / "a.png").write_bytes(b"whole")
        (path / ".b.png.partial").write_bytes(b"half")
        raise ZeroDivisionError
    assert [file.name for file in transfer.list_objects(s3_bucket)] == ["out/a.png"]


def test_folders_are_themselves(tmp_path: Path) -> None:
    with local_source(str(tmp_path)) as source, local_target(str(tmp_path / "out"), False) as target:
        assert (source, target) == (tmp_path, tmp_path / "out")
