"""A registry in a workdir of its own, and exports of derainers whose quality is known: they darken by a constant.

The rain of these images brightens them by 0.026 on average, so darkening by that much is best.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.prepare import prepare_dataset
from rgsud_lib.inference import save_derainer, weights_digest
from rgsud_lib.networks import build_derainer

pytest.importorskip("mlflow")
SMALL = """derainer.width=4 derainer.encoder=[1] derainer.middle=1 derainer.decoder=[1] critic.enabled=false
reward.scorer=rain_layer training.device=cpu gate.judges=["niqe","piqe"] gate.slowdown=1000 gate.clean_drop=20"""
VARIABLES = (
    "RGSUD_TRACKING", "RGSUD_RUN_KEY", "RGSUD_USER", "KFP_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME",
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One empty store: its migrations take seconds, so the tests copy it."""
    from rgsud_lib.tracking import mlflow_store

    folder = tmp_path_factory.mktemp("store")
    mlflow_store.connect(folder)
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def workdir(tmp_path: Path, database: bytes) -> Path:
    folder = tmp_path / "work dir"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(database)
    return folder


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config("demo", SMALL.split())


@pytest.fixture(scope="session")
def gate_dataset(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """Five pairs, none of whose scenes is trained on."""
    root = tmp_path_factory.mktemp("gate")
    for index in range(19):
        scene = _scene(index)
        rainy = np.clip(scene.astype(int) + _rain(index), 0, 255).astype(np.uint8)
        if index < 5:
            _save(root / "paired" / "clean" / f"{index}.png", scene)
            _save(root / "paired" / "rain" / f"{index}.png", rainy)
        else:
            _save(root / ("clean" if index < 12 else "rainy") / f"{index}.png", scene if index < 12 else rainy)
    bundle = root / "dataset"
    bundle.mkdir()
    prepare_dataset(config.data, str(root / "rainy"), str(root / "clean"), str(root / "paired"), bundle)
    seal(bundle, "dataset", config.digest("data"))
    return bundle


@pytest.fixture
def make_export(tmp_path: Path, config: Config) -> Callable[..., Path]:
    """`make_export(0.026)`: a sealed export of a derainer that darkens by so much."""

    def make(darken: float, inputs: str = "d") -> Path:
        folder = tmp_path / f"export-{darken}"
        folder.mkdir()
        torch.manual_seed(0)
        derainer = build_derainer(config.derainer)
        derainer.ending.weight.data.zero_()
        derainer.ending.bias.data.fill_(-darken)
        digest = weights_digest(derainer.state_dict())
        save_derainer(derainer, config.derainer, folder / "rgsud-derainer.safetensors")
        metadata = {"weights_digest": digest, "dataset_digest": f"dataset-{inputs}"}
        (folder / "rgsud-derainer.onnx").write_bytes(_identity_onnx(metadata))
        (folder / "model_card.md").write_text(f"# Card of {darken}\n")
        made_from = {kind: f"{kind}-{inputs}" for kind in ("dataset", "reinforced", "evaluation")}
        seal(folder, "export", config.digest("derainer", "export"), made_from, {"weights_digest": digest})
        return folder

    return make


def _scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(40, 190, (5, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((112, 96), Image.Resampling.BICUBIC)).astype(int)
    grain = np.random.default_rng(seed + 100).normal(0, 6, (96, 112, 1)).astype(int)
    return np.clip(smooth + grain, 0, 190).astype(np.uint8)


def _rain(index: int) -> np.ndarray:
    rain = np.zeros((96, 112, 1), int)
    rain[:, index % 5 :: 9] = 60
    return rain


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _identity_onnx(metadata: dict[str, str]) -> bytes:
    shape = ["batch", 3, "height", "width"]
    rainy, derained = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("rainy", "derained")
    )
    node = onnx.helper.make_node("Identity", ["rainy"], ["derained"])
    graph = onnx.helper.make_graph([node], "graph", [rainy], [derained])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()
