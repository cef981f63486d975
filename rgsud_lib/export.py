"""The trained derainer as files for others: safetensors, ONNX and an MLflow model, each loaded back and compared.

ONNX comes from torch.export: batch, height and width are dynamic, the padding to the network's stride
is part of the graph, so odd sizes go in as they are.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from rgsud_lib.inference import load_derainer, save_derainer, weights_digest
from rgsud_lib.model_card import CARD, STRIP, Made, model_card
from rgsud_lib.revision import commit
from rgsud_lib.tracking import StageRun
from rgsud_lib.tracking.mlflow_models import SCORES

NAME = "rgsud-derainer"
INPUT, OUTPUT = "rainy", "derained"
DYNAMIC = {0: "batch", 2: "height", 3: "width"}
COMPARED_SIZES = ((1, 64, 64), (2, 37, 53), (1, 101, 30), (1, 7, 5))  # batch, height, width
MLFLOW_MODEL = Path(".mlflow") / "model"  # hidden: not part of the bundle, whose ONNX file it links to


@contextmanager
def _others_warnings_ignored() -> Iterator[None]:
    """The exporter and MLflow warn of their own internals and of a GPU build that is not needed here."""
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in ("mlflow.onnx", "torch.onnx")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in loggers.items():
                logger.setLevel(level)


def export_model(
    config: Config, dataset: Path, reinforced: Path, evaluation: Path, folder: Path, run: StageRun
) -> dict[str, Any]:
    """Write rgsud-derainer.safetensors, .onnx and model_card.md into `folder`; log the MLflow model through `run`.

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
    weights = folder / f"{NAME}.safetensors"
    save_derainer(derainer, config.derainer, weights, provenance)
    images = _compared_images(data)
    difference = {"safetensors": _largest_difference(derainer, _torch_runner(weights), images)}
    onnx = folder / f"{NAME}.onnx"
    write_bytes(onnx, to_onnx(derainer, config.export.opset, provenance))
    difference["onnx"] = _largest_difference(derainer, _onnx_runner(onnx), images)
    if run.tracked:
        model = save_mlflow_model(onnx, folder / MLFLOW_MODEL)
        difference["mlflow"] = _largest_difference(derainer, _mlflow_runner(model), images)
    _check_differences(difference, config.export.tolerance)
    parameters = sum(parameter.numel() for parameter in derainer.parameters())
    facts = {"model": NAME, "parameters": parameters, "opset": config.export.opset, "max_difference": difference}
    card = Made(
        config, open_bundle(dataset, "dataset"), data.manifest, json.loads((folder / SCORES).read_text()),
        facts | provenance | {"commit": commit()}, (folder / STRIP).is_file(), COMPARED_SIZES,
    )  # fmt: skip
    write_bytes(folder / CARD, model_card(card).encode())
    _log(folder, run)
    return facts | {"weights_digest": provenance["weights_digest"]}


@_others_warnings_ignored()
def to_onnx(derainer: nn.Module, opset: int, metadata: dict[str, str]) -> bytes:
    """One ONNX file: "rainy" to "derained", B x 3 x H x W float32 in [0,1], the output clamped; all sizes dynamic."""
    program = torch.onnx.export(
        _Clamped(derainer).eval(),
        (torch.rand(2, 3, 70, 61),),
        dynamo=True,
        dynamic_shapes=(DYNAMIC,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=opset,
        verbose=False,
    )
    proto = program.model_proto
    for name, value in sorted(metadata.items()):
        proto.metadata_props.add(key=name, value=value)
    return proto.SerializeToString(deterministic=True)


@_others_warnings_ignored()
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


class _Clamped(nn.Module):
    def __init__(self, derainer: nn.Module) -> None:
        super().__init__()
        self.derainer = derainer

    def forward(self, rainy: Tensor) -> Tensor:
        return self.derainer(rainy).clamp(0, 1)


def _compared_images(data: Dataset) -> list[Tensor]:
    """Noise of odd sizes, and one whole rainy photograph."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(batch, 3, height, width, generator=generator) for batch, height, width in COMPARED_SIZES]
    photograph = data.image(data.select("rainy")[0].id)
    return [*noise, to_tensor(photograph[:1024, :1024])]


@torch.no_grad()
def _largest_difference(derainer: nn.Module, runner: Callable[[np.ndarray], np.ndarray], images: list[Tensor]) -> float:
    reference = _Clamped(derainer)
    return max(float(np.abs(reference(image).numpy() - runner(image.numpy())).max()) for image in images)


def _torch_runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    loaded = _Clamped(load_derainer(file))
    return lambda image: loaded(torch.from_numpy(image)).numpy()


def _onnx_runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda image: session.run([OUTPUT], {INPUT: image})[0]


@_others_warnings_ignored()
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
