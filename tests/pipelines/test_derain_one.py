"""`rgsud derain-one`: a file goes in, a file comes out, and what cannot be is refused before any work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rgsud_lib.data.images import to_uint8
from rgsud_lib.data.rain_models import Streaks, add_streaks
from rgsud_lib.errors import DataError
from rgsud_pipelines.cli import app

RAIN = (Streaks(angle=15.0, spread=1.0, length=24.0, width=0.9, density=0.005, depths=1, brightness=0.5),)


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["derain-one", *map(str, arguments)])
    if result.exception:
        raise result.exception
    return result.output


@pytest.fixture
def rainy(tmp_path):
    scene = torch.linspace(0.1, 0.6, 96).expand(1, 3, 80, 96)
    path = tmp_path / "rain.png"
    Image.fromarray(to_uint8(add_streaks(scene, 1, RAIN))[0]).save(path)
    return path


def test_a_photograph_is_derained(rainy, tmp_path):
    out = tmp_path / "new" / "derained.png"
    assert str(out) in invoke(rainy, out, "--episodes", 2)
    before, after = (np.asarray(Image.open(path)).astype(float) for path in (rainy, out))
    assert after.shape == before.shape and after.std() < before.std()
    first = out.read_bytes()
    invoke(rainy, out, "--episodes", 2, "--overwrite")
    assert out.read_bytes() == first


def test_a_photograph_without_rain_says_so(tmp_path):
    dry = tmp_path / "dry.png"
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(dry)
    assert "no rain was found" in invoke(dry, tmp_path / "out.png")
    assert (np.asarray(Image.open(tmp_path / "out.png")) == 90).all()


def test_what_cannot_be_is_refused(rainy, tmp_path):
    with pytest.raises(DataError, match="none.png is no file; give one photograph"):
        invoke(tmp_path / "none.png", tmp_path / "out.png")
    with pytest.raises(DataError, match="out.txt: its suffix names no picture format; use one of .png"):
        invoke(rainy, tmp_path / "out.txt")
    with pytest.raises(DataError, match="exists; choose another target, or add --overwrite"):
        invoke(rainy, rainy)
