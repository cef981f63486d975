"""`rgsud data`: what it prints, and exit code 1 where a check fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from rgsud_lib.data.published import published_sets
from rgsud_lib.errors import DataError
from rgsud_pipelines.cli import app


def rgsud(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_list_and_describe() -> None:
    listed = rgsud("list")
    assert listed.exit_code == 0
    assert all(f"\n{entry.name} " in listed.stdout for entry in published_sets())
    assert "train 200, test 100" in listed.stdout
    assert "546 of the 1800" in rgsud("describe", "rain100h").stdout


def test_check_ends_with_0_or_1(photos: Callable[..., Path], tmp_path: Path) -> None:
    for side in ("rain", "clean"):
        photos(f"Rain12/test/{side}", range(12), height=321, width=481)
    right = rgsud("check", "Rain12", tmp_path / "Rain12")
    assert right.exit_code == 0, right.output
    assert "ok    test count: 12 pairs, as published" in right.stdout
    (tmp_path / "Rain12" / "test" / "rain" / "003.png").unlink()
    wrong = rgsud("check", "Rain12", tmp_path / "Rain12")
    assert wrong.exit_code == 1
    assert "fail  test pairs" in wrong.stdout and "only clean: 003" in wrong.stdout
    assert "2 of 4 checks failed" in wrong.stdout


def test_bad_input() -> None:
    assert isinstance(rgsud("check", "Rain100X", ".").exception, DataError)
    assert "no such folder" in str(rgsud("check", "Rain100L", "nowhere").exception)
