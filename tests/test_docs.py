"""Every `rgsud` command that the documentation shows is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image

from rgsud_lib.config import DerainerConfig
from rgsud_lib.inference import save_derainer
from rgsud_lib.networks import build_derainer
from rgsud_pipelines.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def commands(page: Path) -> list[str]:
    """Lines of the page's shell blocks that begin with rgsud, continued lines joined, files they write to left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    lines = re.sub(r"\\\n\s*| > \S+", "", "".join(blocks)).splitlines()
    return [line for line in lines if line.startswith("rgsud ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_parse(page: Path) -> None:
    for line in commands(page):
        command = typer.main.get_command(app)
        given = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
        context = command.make_context("rgsud", given)
        while hasattr(command, "resolve_command"):
            name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
            assert command is not None, f"{line}: no such command"
            context = command.make_context(name, words, parent=context)


@pytest.mark.parametrize("page", ["README.md", "docs/use.md"])
def test_documented_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = DerainerConfig(width=8, encoder=(1,), middle=1, decoder=(1,))
    (tmp_path / "rgsud-runs").mkdir()
    save_derainer(build_derainer(small), small, tmp_path / "rgsud-runs" / "rgsud-derainer.safetensors")
    Image.new("RGB", (40, 30), "grey").save(tmp_path / "rainy.jpg")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.M | re.S)
    assert blocks
    exec("".join(blocks), {})
    with Image.open(tmp_path / "clean.png") as image:
        assert image.size == (40, 30)


def test_the_pages_have_commands() -> None:
    assert len([line for page in PAGES for line in commands(page)]) > 10
