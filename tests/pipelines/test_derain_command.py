"""`rgsud derain`: what it says, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from rgsud_lib.config import DerainerConfig
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.inference import save_derainer
from rgsud_lib.networks import build_derainer
from rgsud_pipelines.cli import app


@pytest.fixture()
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rain/ and an untrained model where `rgsud derain` looks for one."""
    monkeypatch.chdir(tmp_path)
    small = DerainerConfig(width=8, encoder=(1,), middle=1, decoder=(1,))
    (tmp_path / "rgsud-runs" / "export").mkdir(parents=True)
    save_derainer(build_derainer(small), small, tmp_path / "rgsud-runs" / "export" / "rgsud-derainer.safetensors")
    (tmp_path / "rain").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((20, 30, 3), 100, np.uint8)).save(tmp_path / "rain" / name)
    return tmp_path


def derain(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["derain", *arguments, "--device", "cpu"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception  # what `main` explains
    return result


def test_outputs_on_stdout_settings_and_summary_beside(workdir: Path) -> None:
    result = derain("rain", "out")
    assert (result.exit_code, result.stdout) == (0, "out/a.png\nout/b.png\n")
    assert "--tile 512 (as memory allows) --overlap 32 --device cpu, full precision" in result.stderr
    assert "2 of 2 derained\n" in result.stderr
    with Image.open("out/a.png") as image:
        assert np.array_equal(np.array(image), np.full((20, 30, 3), 100))  # untrained networks change nothing


def test_failures_are_listed_with_exit_code_1_and_resume_makes_the_rest(workdir: Path) -> None:
    (workdir / "rain" / "c.jpg").write_text("broken")
    result = derain("rain", "out", "--tile", "128")
    assert result.exit_code == 1
    assert "--tile 128 --overlap 32" in result.stderr
    assert "2 of 3 derained\nfailed (1):\n  rain/c.jpg: not an image" in result.stderr
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(workdir / "rain" / "c.jpg")
    with pytest.raises(DataError, match="give --resume"):
        derain("rain", "out")
    result = derain("rain", "out", "--resume")
    assert (result.exit_code, result.stdout) == (0, "out/c.jpg\n")
    assert "1 of 1 derained, 2 were there" in result.stderr
    assert "nothing to do: all 3 outputs are there" in derain("rain", "out", "--resume").stderr
    assert derain("rain", "out", "--overwrite", "--compare").exit_code == 0
    with Image.open("out/a.png") as image:
        assert image.size == (60, 20)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("rain", "out", "--format", "gif"), ConfigError, "--format gif: choose one of png, jpg"),
        (("rain", "out", "--resume", "--overwrite"), ConfigError, "give one of them"),
        (("rain", "out", "--model", "nowhere"), BundleError, "no model at nowhere"),
        (("rain", "out", "--tile", "60"), ConfigError, "tile 60 with overlap 32"),
    ],
)
def test_mistakes_are_refused_before_any_work(workdir: Path, arguments: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        derain(*arguments)
    assert not Path("out").exists()
