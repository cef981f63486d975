"""Records on disk: in order, whole, with what they carry, held by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rgsud_lib.tracking import spool
from rgsud_lib.tracking.spool import Spool, SpoolFull, left_behind


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Spool]]:
    """Every spool of a test, released at its end."""
    spools: list[Spool] = []
    original = Spool.__init__

    def remembered(self: Spool, *arguments: Any) -> None:
        original(self, *arguments)
        spools.append(self)

    monkeypatch.setattr(Spool, "__init__", remembered)
    yield spools
    for each in spools:
        each.release(delivered=False)


def reopened(made: Spool) -> Spool:
    made.release(delivered=False)
    found = Spool.claim(made.folder)
    assert found is not None
    return found


def told(made: Spool) -> list[tuple[str, int]]:
    return [(record.op, record.fields.get("n", 0)) for record in made.pending()]


def test_records_come_back_in_order_and_what_was_delivered_does_not(tmp_path: Path) -> None:
    made = Spool.create(tmp_path / spool.FOLDER, "recycle")
    for number in range(3):
        made.append("rows", n=number)
    made.advance(made.pending()[0])
    made.remember({"child": "abc"})
    again = reopened(made)
    assert told(again) == [("rows", 1), ("rows", 2)] and again.runs == {"child": "abc"}
    again.append("close")
    assert told(again)[-1] == ("close", 0)
    assert left_behind(tmp_path) == [made.folder]
    again.release(delivered=True)
    assert left_behind(tmp_path) == []


def test_a_file_is_kept_as_it_was_and_goes_when_it_is_delivered(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("first")
    made = Spool.create(tmp_path / spool.FOLDER, "evaluate")
    made.append("artifact", file)
    assert os.path.samefile(file, made.path(made.pending()[0])), "stored once"
    file.unlink()
    file.write_text("second")
    (record,) = reopened(made).pending()
    assert (made.path(record).name, made.path(record).read_text()) == ("report.html", "first")
    made.advance(record)
    assert list((made.folder / spool.FILES).iterdir()) == []


def test_what_a_crash_cut_off_is_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Spool.create(tmp_path, "recycle")
    made.append("rows", n=1)
    with open(made.folder / spool.RECORDS, "ab") as file:
        file.write(b'{"op": "rows", "ti')
    assert told(made) == [("rows", 1)]
    again = reopened(made)
    again.append("close")
    assert told(again) == [("rows", 1), ("close", 0)]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    made = Spool.create(tmp_path, "recycle")
    assert Spool.claim(made.folder) is None
    made.release(delivered=False)
    first = Spool.claim(made.folder)
    assert first is not None and Spool.claim(made.folder) is None
    first.release(delivered=True)
    assert Spool.claim(made.folder) is None, "it is gone"


def test_files_have_a_limit_and_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes(600))
    monkeypatch.setattr(spool, "LIMIT", 1000)
    made = Spool.create(tmp_path, "export")
    made.append("artifact", file)
    with pytest.raises(SpoolFull, match="is not kept for MLflow"):
        made.append("artifact", file)
    made.advance(made.pending()[0])
    made.append("artifact", file)
    (made.folder / spool.RECORDS).unlink()
    (made.folder / spool.RECORDS).mkdir()
    with pytest.raises(SpoolFull, match="cannot be written"):
        made.append("rows")
