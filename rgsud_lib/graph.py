"""The trained derainer as one graph, whatever the size of the batch and the images: a torch.export program, and ONNX.

The padding to the network's stride is part of the graph, so odd sizes go in as they are.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

INPUT, OUTPUT = "rainy", "derained"
DYNAMIC = {0: "batch", 2: "height", 3: "width"}
METADATA = "rgsud.json"  # in the program's file


@contextmanager
def others_warnings_ignored() -> Iterator[None]:
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


class Clamped(nn.Module):
    """What is exported: the derainer, its output clamped to [0,1]."""

    def __init__(self, derainer: nn.Module) -> None:
        super().__init__()
        self.derainer = derainer

    def forward(self, rainy: Tensor) -> Tensor:
        return self.derainer(rainy).clamp(0, 1)


@others_warnings_ignored()
@torch.no_grad()
def capture(derainer: nn.Module) -> ExportedProgram:
    """The graph from "rainy" to the derained images, B x 3 x H x W float32 in [0,1], for any B and sides of
    `smallest_side` and more."""
    import torch.fx.experimental._config as tracing

    shapes = dict.fromkeys(DYNAMIC, torch.export.Dim.DYNAMIC)
    # The tracer asks of tensors whether they are contiguous. By default it takes the example's answers for conditions,
    # and the program refuses sizes that answer otherwise, such as multiples of the stride; so it shall not ask.
    with tracing.patch(backed_size_oblivious=True):
        program = torch.export.export(
            Clamped(derainer).eval(),
            (torch.zeros(2, 3, 70, 61),),
            dynamic_shapes=(shapes,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine: equal models must be equal files
    return program


def smallest_side(program: ExportedProgram) -> int:
    """The fewest rows and columns that a program takes: with fewer, a network's coarsest scale is one pixel."""
    rainy = next(node for node in program.graph.nodes if node.name == INPUT)
    sides = [rainy.meta["val"].shape[axis].node.expr for axis in (2, 3)]
    return max(1, *(int(program.range_constraints[side].lower) for side in sides))


def to_bytes(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    """A .pt2 file for `torch.export.load`."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata, sort_keys=True)})
    return buffer.getvalue()


@others_warnings_ignored()
def to_onnx(program: ExportedProgram, opset: int, metadata: dict[str, str]) -> bytes:
    """One ONNX file: "rainy" to "derained", all sizes dynamic, down to one pixel."""
    proto = torch.onnx.export(
        program,
        dynamo=True,
        dynamic_shapes=(DYNAMIC,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=opset,
        verbose=False,
    ).model_proto
    for name, value in sorted(metadata.items()):
        proto.metadata_props.add(key=name, value=value)
    return proto.SerializeToString(deterministic=True)
