"""Each component's README and metadata say what its signature says; its code only assembles arguments."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import docstring_parser
import pytest
import yaml

import rgsud_components

ROOT = Path(rgsud_components.__file__).parent
NAMES = sorted(path.parent.name for path in ROOT.glob("*/component.py"))
PARAMETERS = {"String": "str", "List": "list", "PipelineTaskFinalStatus": "PipelineTaskFinalStatus"}


def signature(name: str) -> tuple[dict[str, str], dict[str, str]]:
    spec = load(name).component_spec
    sides = []
    for ports in (spec.inputs, spec.outputs):
        sides.append({port: kind(described.type.split("@")[0]) for port, described in (ports or {}).items()})
    return sides[0], sides[1]


def kind(name: str) -> str:
    """`system.Model` is a Model, `String` a str."""
    return name.removeprefix("system.") if name.startswith("system.") else PARAMETERS[name]


def load(name: str):
    return getattr(importlib.import_module(f"rgsud_components.{name}.component"), name)


def test_there_is_one_component_for_each_step() -> None:
    assert NAMES == [
        "data_check", "data_plan", "data_prep", "derain_plan", "derain_shard", "derain_summary", "evaluation",
        "evaluation_shard", "export", "finalize", "new_data_check", "promotion", "promotion_gate",
        "reward_recycling", "sr_training",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_metadata_matches_the_signature(name: str) -> None:
    metadata = yaml.safe_load((ROOT / name / "metadata.yaml").read_text())
    inputs, outputs = signature(name)
    assert metadata["name"] == name
    assert (metadata["inputs"], metadata["outputs"]) == (inputs, outputs)


@pytest.mark.parametrize("name", NAMES)
def test_readme_matches_the_signature_and_the_docstring(name: str) -> None:
    readme = (ROOT / name / "README.md").read_text()
    sections = dict(re.findall(r"^## (Inputs|Outputs)\n\n(.*?)(?:\n\n|\Z)", readme, flags=re.M | re.S))
    documented = docstring_parser.parse(load(name).python_func.__doc__)
    meaning = {parameter.arg_name: " ".join(parameter.description.split()) for parameter in documented.params}
    if documented.returns:
        meaning["Output"] = documented.returns.description
    for title, ports in zip(("Inputs", "Outputs"), signature(name), strict=True):
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", sections[title], flags=re.M)
        assert rows == [(port, kind, meaning[port]) for port, kind in ports.items()]


@pytest.mark.parametrize("name", NAMES)
def test_importing_a_component_needs_neither_torch_nor_mlflow(name: str) -> None:
    tree = ast.parse((ROOT / name / "component.py").read_text())
    top = {node.module.split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
    assert top <= {"kfp", "rgsud_components"}
    body = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert sum(isinstance(node, (ast.For, ast.While, ast.If)) for node in ast.walk(body)) == 0, (
        "logic belongs to rgsud_lib"
    )
