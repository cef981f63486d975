"""The GPU agenda in miniature on the CPU: stopped, moved to another machine in parts, finished; then nothing to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_agenda.sh"
# What a machine with PyTorch, torchvision and lightning has (KINDS.md of the lent ones), and what `pack` brings.
PRESENT = """
PIL annotated_types cuda dill filelock fsspec google jinja2 lightning_fabric lightning_utilities markupsafe mpmath
networkx numpy numpy.libs packaging psutil pydantic pydantic_core safetensors sympy torch torchgen tqdm triton
typing_extensions.py typing_inspection yaml
"""


def agenda(*arguments: str, work: Path, out: Path, **more: str) -> subprocess.CompletedProcess[str]:
    own = {"AGENDA_WORK": str(work), "OUT": str(out), "AGENDA_DEVICE": "cpu", "PYTHON": sys.executable}
    environment = {**os.environ, **own, **{f"AGENDA_{name.upper()}": value for name, value in more.items()}}
    command = [str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A Python that sees these packages and no other."""
    site = tmp_path / "site"
    site.mkdir()
    import torch

    installed = Path(torch.__file__).parents[1]
    for name in PRESENT.split():
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{site}" exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_the_packages_that_the_agenda_may_use_are_no_kfp_and_no_mlflow() -> None:
    present = {name.removesuffix(".py") for name in PRESENT.split()}
    assert not present & {"kfp", "mlflow", "boto3", "matplotlib", "skimage", "scipy", "sklearn", "typer", "onnx"}
    assert {"torch", "pydantic"} <= present & set(packages_distributions())


def test_parts_leave_in_turns_and_arrive_whole(tmp_path: Path) -> None:
    work, state = tmp_path / "work", bytes(range(256)) * 40
    (work / "parts").mkdir(parents=True)
    for number in range(5):
        (work / "parts" / f"state.{number:03d}").write_bytes(state[number * 2048 : (number + 1) * 2048])
    (work / "parts" / "parts").write_text("5 1\n")
    for first, handed in (("0", 3), ("3", 2)):
        done = agenda("parts", first, work=work, out=tmp_path / first)
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / first).glob("state.*"))) == handed
        assert ("parts 3" in done.stdout) == (first == "0")
    carried = tmp_path / "carried" / "state"
    carried.mkdir(parents=True)
    for first in ("0", "3"):
        for file in (tmp_path / first).iterdir():
            shutil.move(file, carried / file.name)
        agenda("bring", work=tmp_path / "fresh", out=tmp_path / "o", carried=str(carried.parent))
    arrived = sorted((tmp_path / "fresh" / "incoming").glob("state.*"))
    assert b"".join(file.read_bytes() for file in arrived) == state


def test_an_unknown_command_shows_how_it_is_used(tmp_path: Path) -> None:
    done = agenda("reset", work=tmp_path, out=tmp_path)
    assert done.returncode == 2 and "gpu_agenda.sh pack" in done.stdout


@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_stopped_moved_and_finished(photographs: Path, bare: str, tmp_path: Path) -> None:
    settings = {"data": str(photographs), "part_bytes": "100000"}
    first, out, carried = tmp_path / "first", tmp_path / "out", tmp_path / "carried"
    done = agenda(work=first, out=out, minutes="0.25", python=bare, **settings)
    assert done.returncode == 0 and "time is up; the same command goes on" in done.stdout, done.stderr
    shutil.copytree(first / "parts", carried / "state")
    shutil.rmtree(first)

    second = tmp_path / "second"
    done = agenda(work=second, out=out, minutes="20", carried=str(carried), **settings)
    assert done.returncode == 0, done.stderr
    assert "going on from the state" in done.stdout
    names = {file.stem.removeprefix("gpu_") for file in (second / "results").iterdir()}
    assert {"throughput", "rain100L_rewards", "weights", "inference", "plug_in", "rain100L_scratch"} <= names
    with tarfile.open(out / "kept.tar") as kept:
        assert {"weights/rgsud-rain100l.safetensors", "weights/rgsud-rain100l.md"} <= set(kept.getnames())
    assert str(tmp_path) not in "".join(file.read_text() for file in (second / "results").iterdir())

    again = agenda(work=second, out=out, minutes="20", **settings)
    assert again.returncode == 0 and again.stderr.count("is there") == len(names), again.stderr
    trained = json.loads((second / "results" / "gpu_rain100L_rewards.json").read_text())
    assert trained["arms"].keys() >= {"doing nothing", "warm start", "stage 1", "rewards"}
