from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rgsud_lib.bundle import seal
from rgsud_lib.errors import BundleError
from rgsud_lib.evaluation.evaluate import evaluate_models
from rgsud_lib.export import MLFLOW_MODEL, export_model
from rgsud_lib.inference import load_derainer, weights_digest
from rgsud_lib.tracking import StageRun


class Recorder(StageRun):
    """A run that remembers what it was given."""

    def __init__(self) -> None:
        self.run_id = "abc"
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


def test_safetensors_holds_the_same_weights(mini_run, exported: tuple[Path, dict, Recorder]) -> None:
    folder, facts, _ = exported
    assert weights_digest(load_derainer(folder).state_dict()) == facts["weights_digest"]
    assert facts["weights_digest"] == weights_digest(load_derainer(mini_run.reinforced).state_dict())
    assert facts["max_difference"]["safetensors"] == 0


def test_mlflow_model_has_a_signature_and_predicts(exported: tuple[Path, dict, Recorder]) -> None:
    import mlflow.pyfunc

    folder, facts, run = exported
    assert facts["max_difference"]["mlflow"] < 1e-5
    assert run.artifacts == [folder / "model_card.md"]
    assert run.models == [folder / MLFLOW_MODEL]
    loaded = mlflow.pyfunc.load_model(str(folder / MLFLOW_MODEL))
    taken, given = loaded.metadata.signature.inputs.inputs[0], loaded.metadata.signature.outputs.inputs[0]
    assert (taken.name, taken.shape, taken.type) == ("rainy", (-1, 3, -1, -1), np.dtype(np.float32))
    assert (given.name, given.shape) == ("derained", (-1, 3, -1, -1))
    assert loaded.predict({"rainy": np.zeros((2, 3, 21, 34), np.float32)})["derained"].shape == (2, 3, 21, 34)


def test_weights_lie_once_and_the_bundle_holds_no_hidden_copy(exported: tuple[Path, dict, Recorder]) -> None:
    folder, _, _ = exported
    assert os.path.samefile(folder / "rgsud-derainer.onnx", folder / MLFLOW_MODEL / "model.onnx")
    for name in ("rgsud-derainer.safetensors", "model_card.md"):  # for `rgsud derain --model models:/...`
        assert os.path.samefile(folder / name, folder / MLFLOW_MODEL / name)
    bundle = seal(folder, "export", "0")
    assert set(bundle.files) == {"rgsud-derainer.safetensors", "rgsud-derainer.onnx", "model_card.md"}


def test_model_card_tells_the_runs_facts(mini_run, evaluation: Path, exported: tuple[Path, dict, Recorder]) -> None:
    card = (exported[0] / "model_card.md").read_text()
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert f"**Transductive: {metrics['pairs']['transductive']} of 3 rainy inputs were trained on.**" in card
    line = next(line for line in card.splitlines() if line.startswith("| stage 2 (this model)"))
    low, high = metrics["pairs"]["interval"]["reinforced"]["psnr_rgb"]
    assert f"| {metrics['pairs']['mean']['reinforced']['psnr_rgb']:.2f} ({low:.2f} to {high:.2f}) |" in line
    assert "- rain_layer: this project's code, no foreign weights" in card
    header = next(line for line in card.splitlines() if line.startswith("| model"))
    assert "PSNR RGB ↑" in header
    assert "rain_layer ↑ (was the reward)" in header
    assert exported[1]["weights_digest"] in card
    assert json.loads((mini_run.dataset / "bundle.json").read_text())["digest"] in card
    lines = card.splitlines()
    assert lines[0] == "# RGSUD derainer"
    # A Markdown table is header, rule and rows without a blank line between them.
    for number, text in enumerate(lines):
        if text.startswith("|---"):
            assert lines[number - 1].startswith("|")
            assert lines[number + 1].startswith("|")
            assert lines[number - 1].count("|") == text.count("|") == lines[number + 1].count("|")


def test_without_tracking_there_is_no_mlflow_model_and_the_card_says_so(
    mini_run, evaluation: Path, exported: tuple[Path, dict, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = (exported[0] / "rgsud-derainer.onnx").read_bytes()
    monkeypatch.setattr("rgsud_lib.export.to_onnx", lambda *_: done)  # saves seconds; the same bytes
    facts = export_model(mini_run.config, mini_run.dataset, mini_run.reinforced, evaluation, tmp_path, StageRun())
    assert set(facts["max_difference"]) == {"safetensors", "onnx"}
    assert "No MLflow model: tracking was off" in (tmp_path / "model_card.md").read_text()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model_card.md", "rgsud-derainer.onnx", "rgsud-derainer.safetensors"]


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
