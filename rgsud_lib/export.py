"""The trained derainer as files for others, each loaded back and compared: safetensors, torch.export, ONNX, MLflow."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rgsud_lib import __version__
from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Config
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import BundleError
from rgsud_lib.files import write_bytes
from rgsud_lib.graph import INPUT, OUTPUT, Clamped, capture, others_warnings_ignored, smallest_side, to_bytes, to_onnx
from rgsud_lib.inference import load_derainer, save_derainer, weights_digest
from rgsud_lib.model_card import CARD, STRIP, Made, model_card
from rgsud_lib.revision import commit
from rgsud_lib.tracking import StageRun
from rgsud_lib.tracking.mlflow_models import SCORES

NAME = "rgsud-derainer"
COMPARED_SIZES = ((1, 64, 64), (2, 37, 53), (1, 101, 30), (1, 7, 5))  # batch, height, width
MLFLOW_MODEL = Path(".mlflow") / "model"  # hidden: not part of the bundle, whose ONNX file it links to


def export_model(
    config: Config, dataset: Path, reinforced: Path, evaluation: Path, folder: Path, run: StageRun
) -> dict[str, Any]:
    """Write rgsud-derainer.safetensors, .pt2, .onnx and model_card.md into `folder`; log the MLflow model by `run`.

    The evaluation's metrics.json and strip.png, which the card shows, lie beside it. Without tracking there is no
    MLflow model, and the card says so. Returns the bundle's facts.
    Raises BundleError where a file that was loaded back differs from PyTorch by more than export.tolerance.
    """
    derainer = load_derainer(reinforced)
    data, evaluated = Dataset.open(dataset), open_bundle(evaluation, "evaluation")
    for name in {SCORES, STRIP} & evaluated.files.keys():
        write_bytes(folder / name, (evaluation / name).read_bytes())
    provenance = {
        "code_version": __version__,
        "dataset_digest": data.digest,
        "reinforced_digest": open_bundle(reinforced, "reinforced").digest,
        "evaluation_digest": evaluated.digest,
        "config_digest": config.digest(),
        "weights_digest": weights_digest(derainer.state_dict()),
    }
    difference, smallest = _write_files(derainer, config, folder, provenance, _compared_images(data))
    if run.tracked:
        model = save_mlflow_model(folder / f"{NAME}.onnx", folder / MLFLOW_MODEL)
        difference["mlflow"] = _largest_difference(derainer, _mlflow_runner(model), _compared_images(data))
    _check_differences(difference, config.export.tolerance)
    facts = {
        "model": NAME,
        "parameters": sum(parameter.numel() for parameter in derainer.parameters()),
        "opset": config.export.opset,
        "smallest_side": smallest,
        "max_difference": difference,
    }
    card = Made(
        config, open_bundle(dataset, "dataset"), data.manifest, json.loads((folder / SCORES).read_text()),
        facts | provenance | {"commit": commit()}, (folder / STRIP).is_file(), COMPARED_SIZES,
    )  # fmt: skip
    write_bytes(folder / CARD, model_card(card).encode())
    _log(folder, run)
    return facts | {"weights_digest": provenance["weights_digest"]}


@others_warnings_ignored()
def save_mlflow_model(onnx: Path, target: Path) -> Path:
    """An MLflow model (onnx and python_function flavours) with its signature; the weights are a link to `onnx`.

    Its metadata is the ONNX file's.
    """
    import mlflow.onnx
    import onnx as onnx_library
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(name: str) -> Schema:
        return Schema([TensorSpec(np.dtype(np.float32), (-1, 3, -1, -1), name)])

    _remove(target)
    model = onnx_library.load(onnx)
    mlflow.onnx.save_model(
        model,
        str(target),
        signature=ModelSignature(inputs=schema(INPUT), outputs=schema(OUTPUT)),
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "onnx", "onnxruntime")],
        save_as_external_data=False,
        onnx_execution_providers=["CPUExecutionProvider"],
        metadata={item.key: item.value for item in model.metadata_props},
    )
    _link_equal(onnx, target / "model.onnx")
    return target


def _write_files(
    derainer: nn.Module, config: Config, folder: Path, provenance: dict[str, str], images: list[Tensor]
) -> tuple[dict[str, float], int]:
    """Write the model in each format; returns the largest differences, and the smallest side that the program takes."""
    weights, program, onnx = (folder / f"{NAME}.{suffix}" for suffix in ("safetensors", "pt2", "onnx"))
    save_derainer(derainer, config.derainer, weights, provenance)
    graph = capture(derainer)
    write_bytes(program, to_bytes(graph, provenance))
    write_bytes(onnx, to_onnx(graph, config.export.opset, provenance))
    smallest = smallest_side(graph)
    taken = [image for image in images if min(image.shape[-2:]) >= smallest]
    return {
        "safetensors": _largest_difference(derainer, _torch_runner(weights), images),
        "torch.export": _largest_difference(derainer, _program_runner(program), taken),
        "onnx": _largest_difference(derainer, _onnx_runner(onnx), images),
    }, smallest


def _compared_images(data: Dataset) -> list[Tensor]:
    """Noise of odd sizes, and one whole rainy photograph."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(batch, 3, height, width, generator=generator) for batch, height, width in COMPARED_SIZES]
    photograph = data.image(data.select("rainy")[0].id)
    return [*noise, to_tensor(photograph[:1024, :1024])]


@torch.no_grad()
def _largest_difference(derainer: nn.Module, runner: Callable[[np.ndarray], np.ndarray], images: list[Tensor]) -> float:
    reference = Clamped(derainer)
    return max(float(np.abs(reference(image).numpy() - runner(image.numpy())).max()) for image in images)


def _torch_runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    loaded = Clamped(load_derainer(file))
    return lambda image: loaded(torch.from_numpy(image)).numpy()


def _program_runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    loaded = torch.export.load(file).module()
    return lambda image: loaded(torch.from_numpy(image)).numpy()


def _onnx_runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda image: session.run([OUTPUT], {INPUT: image})[0]


@others_warnings_ignored()
def _mlflow_runner(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    import mlflow.pyfunc

    loaded = mlflow.pyfunc.load_model(str(model))
    return lambda image: loaded.predict({INPUT: image})[OUTPUT]


def _check_differences(difference: dict[str, float], tolerance: float) -> None:
    for kind, value in difference.items():
        if not value <= tolerance:
            raise BundleError(
                f"the exported {kind} model differs from PyTorch by {value:.2g} on a [0,1] scale, more than "
                f"export.tolerance={tolerance:g}; raise the tolerance or try another export.opset"
            )


def _log(folder: Path, run: StageRun) -> None:
    for name in (CARD, STRIP):
        if (folder / name).is_file():
            run.log_artifact(folder / name)
    if run.tracked:
        from rgsud_lib.tracking.mlflow_models import add_companions

        add_companions(folder, folder / MLFLOW_MODEL)
        run.log_model(folder / MLFLOW_MODEL)


def _link_equal(source: Path, copy: Path) -> None:
    """Make `copy`, equal to `source`, the same file on disk where the file system can."""
    if source.read_bytes() != copy.read_bytes():
        return
    beside = copy.with_name(f".{copy.name}.partial")
    try:
        os.link(source, beside)
        os.replace(beside, copy)
    except OSError:
        beside.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """What an interrupted export left: MLflow writes into empty folders only."""
    import shutil

    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
