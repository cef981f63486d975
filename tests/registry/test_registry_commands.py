"""`rgsud registry list | promote | rollback` and `rgsud derain --model models:/...`, in this process for speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.cost.spent import Spent, documents
from rgsud_lib.errors import RegistryError
from rgsud_lib.registry import Registry, promotion
from rgsud_lib.task import explain
from rgsud_pipelines.cli import app


def rgsud(*arguments: str, workdir: Path) -> str:
    result = CliRunner().invoke(app, [*arguments, "--workdir", str(workdir)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_list_promote_derain_and_roll_back(config, gate_dataset: Path, make_export, workdir: Path, tmp_path) -> None:
    for darken in (0.024, 0.1):
        promotion.promotion_gate(config, gate_dataset, make_export(darken), workdir)
    assert rgsud("registry", "promote", "challenger", "--why", "try it", workdir=workdir) == (
        "version 2 is the champion (before: none)\n"
    )
    rgsud("registry", "promote", "1", workdir=workdir)
    listed = rgsud("registry", "list", workdir=workdir)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in listed.splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows] == [["2", "previous"], ["1", "champion"]]
    assert [row[-1] for row in rows] == ["hold", "promote"]
    assert "2 -> 1  by " in listed and "none -> 2  by " in listed and ": try it" in listed

    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 30), (128, 128, 128)).save(tmp_path / "in" / "grey.png")
    rgsud("derain", str(tmp_path / "in"), str(tmp_path / "out"), "--model", "models:/rgsud@champion", workdir=workdir)
    with Image.open(tmp_path / "out" / "grey.png") as image:
        assert image.getpixel((20, 15)) == (122, 122, 122), "0.024 darker"
    assert rgsud("registry", "rollback", workdir=workdir) == "version 2 is the champion again\n"


def test_a_version_says_what_its_model_cost(config, gate_dataset, make_export, workdir: Path, tmp_path: Path) -> None:
    exported = make_export(0.024)
    bundle = open_bundle(exported)
    spent = [Spent("NVIDIA H100", 2, 8, "gpu-spot", seconds=3600.0, lost=600.0, attempts=3)]
    seal(exported, "export", bundle.config_digest, bundle.inputs, bundle.facts, cost=documents(spent))
    promotion.promotion_gate(config, gate_dataset, exported, workdir)
    (version,) = Registry.open(workdir).versions()
    assert [Spent.parse(line) for line in json.loads(version.tags["rgsud.cost"])] == spent
    assert "Cost: 1 h 0 min, 7,200 GPU-seconds on NVIDIA H100; 10 min 0 s of it lost to stops." in version.description
    assert "1 h 0 min, 7,200 GPU-s │" in rgsud("registry", "list", workdir=workdir)
    (tmp_path / "prices.yaml").write_text("{currency: EUR, gpu_hour: {gpu-spot: 1.5}}")
    listed = rgsud("registry", "list", "--prices", str(tmp_path / "prices.yaml"), workdir=workdir)
    assert "7,200 GPU-s, 3.00 EUR" in listed


def test_help_teaches() -> None:
    text = CliRunner().invoke(app, ["registry", "--help"]).output
    assert "rgsud registry rollback --why" in text and "models:/rgsud@champion" in text


def test_a_workdir_without_runs_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no registry in .*mlflow.db is missing there.; run `rgsud run` first"):
        rgsud("registry", "list", workdir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert explain(RegistryError("x")) == (2, "x")
