"""`rgsud new-data`: what it prints and where the page lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rgsud_pipelines.cli import app


def test_the_answer_its_reasons_and_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    (tmp_path / "rain").mkdir()
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "rain" / "a.png")
    runs = tmp_path / "runs"
    answer = CliRunner().invoke(app, ["new-data", "--rainy", str(tmp_path / "rain"), "--workdir", str(runs)])
    assert answer.stdout.splitlines() == ["train", "  no model yet", f"report  {runs / 'new-data.html'}"]
    assert "<h1>Train</h1>" in (runs / "new-data.html").read_text()
