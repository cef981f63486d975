from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rgsud_lib import graph
from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import BundleError
from rgsud_lib.evaluation.evaluate import evaluate_models
from rgsud_lib.evaluation.verdict import decimals, label, shown_metrics
from rgsud_lib.export import MLFLOW_MODEL, export_model
from rgsud_lib.inference import load_derainer, weights_digest
from rgsud_lib.revision import commit
from rgsud_lib.tracking import StageRun


class Recorder(StageRun):
    """A run that remembers what it was given."""

    def __init__(self) -> None:
        self.tracked = True
        self.artifacts: list[Path] = []
        self.models: list[Path] = []

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        self.artifacts.append(path)

    def log_model(self, folder: Path) -> None:
        self.models.append(folder)


@pytest.fixture(scope="module")
def evaluation(mini_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    evaluate_models(mini_run.config, mini_run.dataset, mini_run.recycled, mini_run.reinforced, folder)
    seal(folder, "evaluation", mini_run.config.digest())
    return folder


@pytest.fixture(scope="module")
def exported(mini_run, evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, Recorder]:
    folder, run = tmp_path_factory.mktemp("export"), Recorder()
    facts = export_model(mini_run.config, mini_run.dataset, mini_run.reinforced, evaluation, folder, run)
    return folder, facts, run


def test_onnx_is_dynamic_and_equals_pytorch(mini_run, exported: tuple[Path, dict, Recorder]) -> None:
    folder, facts, _ = exported
    session = onnxruntime.InferenceSession(folder / "rgsud-derainer.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.shape[1], taken.type) == ("rainy", 3, "tensor(float)")
    assert taken.shape[0] == "batch"
    assert taken.shape[2:] == ["height", "width"]
    derainer = load_derainer(mini_run.reinforced)
    for shape in ((1, 3, 32, 32), (3, 3, 45, 31), (1, 3, 1, 9)):
        image = torch.rand(shape) * 1.2 - 0.1  # past the range: the graph clamps its output
        with torch.no_grad():
            expected = derainer(image).clamp(0, 1).numpy()
        (output,) = session.run(["derained"], {"rainy": image.numpy()})
        assert np.abs(output - expected).max() < 1e-5
    assert max(facts["max_difference"].values()) < 1e-5
    model = onnx.load(folder / "rgsud-derainer.onnx")
    assert model.opset_import[0].version == facts["opset"] == mini_run.config.export.opset
    metadata = {item.key: item.value for item in model.metadata_props}
    assert metadata["weights_digest"] == facts["weights_digest"]


def test_the_program_runs_without_this_projects_code_on_any_size_and_says_what_it_is(mini_run, exported) -> None:
    folder, facts, _ = exported
    about = {"rgsud.json": ""}
    program = torch.export.load(folder / "rgsud-derainer.pt2", extra_files=about)
    assert json.loads(about["rgsud.json"])["weights_digest"] == facts["weights_digest"]
    assert facts["max_difference"]["torch.export"] < 1e-5
    run, derainer, smallest = program.module(), load_derainer(mini_run.reinforced), facts["smallest_side"]
    with torch.no_grad():
        for shape in ((1, 3, 32, 32), (3, 3, 45, 31), (1, 3, smallest, smallest)):
            image = torch.rand(shape) * 1.2 - 0.1  # past the range: the graph clamps its output
            torch.testing.assert_close(run(image), derainer(image).clamp(0, 1), atol=1e-5, rtol=0)
    again = graph.to_bytes(graph.capture(derainer), json.loads(about["rgsud.json"]))
    assert again == (folder / "rgsud-derainer.pt2").read_bytes(), "equal models are equal files"


def test_safetensors_holds_the_same_weights(mini_run, exported: tuple[Path, dict, Recorder]) -> None:
    folder, facts, _ = exported
    assert weights_digest(load_derainer(folder).state_dict()) == facts["weights_digest"]
    assert facts["weights_digest"] == weights_digest(load_derainer(mini_run.reinforced).state_dict())
    assert facts["max_difference"]["safetensors"] == 0


def test_mlflow_model_has_a_signature_and_predicts(exported: tuple[Path, dict, Recorder]) -> None:
    import mlflow.pyfunc

    folder, facts, run = exported
    assert facts["max_difference"]["mlflow"] < 1e-5
    assert run.artifacts == [folder / "model_card.md", folder / "strip.png"]
    assert run.models == [folder / MLFLOW_MODEL]
    loaded = mlflow.pyfunc.load_model(str(folder / MLFLOW_MODEL))
    taken, given = loaded.metadata.signature.inputs.inputs[0], loaded.metadata.signature.outputs.inputs[0]
    assert (taken.name, taken.shape, taken.type) == ("rainy", (-1, 3, -1, -1), np.dtype(np.float32))
    assert (given.name, given.shape) == ("derained", (-1, 3, -1, -1))
    assert loaded.predict({"rainy": np.zeros((2, 3, 21, 34), np.float32)})["derained"].shape == (2, 3, 21, 34)


def test_weights_lie_once_and_the_bundle_holds_no_hidden_copy(exported: tuple[Path, dict, Recorder]) -> None:
    folder, _, _ = exported
    assert os.path.samefile(folder / "rgsud-derainer.onnx", folder / MLFLOW_MODEL / "model.onnx")
    for name in (
        "rgsud-derainer.safetensors",
        "model_card.md",
        "strip.png",
        "metrics.json",
    ):  # for `rgsud derain --model models:/...`
        assert os.path.samefile(folder / name, folder / MLFLOW_MODEL / name)
    bundle = seal(folder, "export", "0")
    names = {f"rgsud-derainer.{suffix}" for suffix in ("safetensors", "pt2", "onnx")}
    assert set(bundle.files) == {*names, "model_card.md", "metrics.json", "strip.png"}


def tables(card: str) -> list[list[list[str]]]:
    """The cells of a card's Markdown tables, without their rules."""
    found: list[list[list[str]]] = []
    for before, line in pairwise(["", *card.splitlines()]):
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip().strip("|").split("|")])
    assert all(set("".join(rows[1])) == {"-"} for rows in found), "header, rule and rows without a blank line between"
    return [[rows[0], *rows[2:]] for rows in found]


def test_the_cards_figures_are_those_of_metrics_json(evaluation: Path, exported: tuple[Path, dict, Recorder]) -> None:
    card = (exported[0] / "model_card.md").read_text()
    assert (exported[0] / "metrics.json").read_bytes() == (evaluation / "metrics.json").read_bytes()
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert f"**Transductive: {metrics['pairs']['transductive']} of 3 rainy inputs were trained on.**" in card
    compared = 0
    for group, (header, *rows) in zip(("pairs", "held_back_rainy"), tables(card), strict=False):
        names = shown_metrics(metrics, group)
        assert [cell.split(" ↑")[0].split(" ↓")[0] for cell in header[1:]] == [label(name) for name in names]
        for model, (_, *cells) in zip(metrics["models"], rows, strict=True):
            for name, cell in zip(names, cells, strict=True):
                digits, interval = decimals(name), metrics[group]["interval"][model].get(name)
                expected = f"{metrics[group]['mean'][model][name]:.{digits}f}"
                expected += f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else ""
                assert cell == expected
                compared += 1
    assert compared == 4 * 6 + 4 * 2
    assert "rain_layer ↑ (was the reward)" in card and "stage 2 (this model)" in card
    assert all(f"- {warning}" in card for warning in metrics["warnings"])


def test_the_card_has_no_empty_field_and_says_what_the_model_was_made_from(
    mini_run, exported: tuple[Path, dict, Recorder]
) -> None:
    card = (exported[0] / "model_card.md").read_text()
    for table in tables(card):
        assert all(len(row) == len(table[0]) for row in table)
        assert all(cell for row in table[1:] for cell in row)
    for empty in ("None", "nan", r"(?<!`)``(?!`)", r"\(\)", "  \n", "Undefined"):
        assert not re.search(empty, re.sub("```.*?```", "", card, flags=re.S))
    sections = re.findall(r"^## (.+)\n\n(?=\S)", card, flags=re.M)
    assert sections == [
        "Results", "Sample images", "Promotion gate", "Data", "Limits", "How to load it", "Licences", "Made from",
    ]  # fmt: skip
    assert card.startswith("# RGSUD derainer\n")
    dataset = open_bundle(mini_run.dataset)
    data = Dataset.open(mini_run.dataset)
    counts = {row[0]: [int(cell) for cell in row[1:]] for row in tables(card)[2][1:]}
    assert counts == {
        role: [len(data.select(role, "train")), len(data.select(role, "validation")), 3] for role in ("rainy", "clean")
    }
    for digest in (dataset.digest, dataset.files["manifest.json"][:16], exported[1]["weights_digest"]):
        assert f"`{digest}`" in card
    assert f"seed {mini_run.config.training.seed}" in card and mini_run.config.digest() in card
    assert f"commit {commit()}" in card
    assert f"- torch.export (sides of {exported[1]['smallest_side']} pixels and more): " in card
    assert "- rain_layer: this project's code, no foreign weights" in card
    assert "](strip.png)" in card and (exported[0] / "strip.png").is_file()


def test_without_tracking_there_is_no_mlflow_model_and_the_card_says_so(
    mini_run, evaluation: Path, exported: tuple[Path, dict, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = (exported[0] / "rgsud-derainer.onnx").read_bytes()
    monkeypatch.setattr("rgsud_lib.export.to_onnx", lambda *_: done)  # saves seconds; the same bytes
    facts = export_model(mini_run.config, mini_run.dataset, mini_run.reinforced, evaluation, tmp_path, StageRun())
    assert set(facts["max_difference"]) == {"safetensors", "torch.export", "onnx"}
    assert "No MLflow model: tracking was off" in (tmp_path / "model_card.md").read_text()
    names = sorted(path.name for path in tmp_path.iterdir())
    models = [f"rgsud-derainer.{suffix}" for suffix in ("onnx", "pt2", "safetensors")]
    assert names == ["metrics.json", "model_card.md", *models, "strip.png"]


def test_an_onnx_file_of_other_weights_is_refused(
    mini_run, evaluation: Path, exported: tuple[Path, dict, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(exported[0] / "rgsud-derainer.onnx")
    bias = next(weight for weight in model.graph.initializer if weight.name.endswith("ending.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    monkeypatch.setattr("rgsud_lib.export.to_onnx", lambda *_: model.SerializeToString())
    with pytest.raises(BundleError, match=r"onnx model differs from PyTorch by 0.01 .* export.tolerance=0.001"):
        export_model(mini_run.config, mini_run.dataset, mini_run.reinforced, evaluation, tmp_path, StageRun())
    assert not (tmp_path / "model_card.md").exists()
