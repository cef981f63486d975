"""Compile the DAG to compiled/*.yaml, which is committed: a change of the DAG is a reviewable diff.

`python -m rgsud_pipelines.compile` (or `make compile`).
"""

from __future__ import annotations

from pathlib import Path

from kfp import compiler

from rgsud_pipelines.placement import PROFILES
from rgsud_pipelines.training import training_pipeline

COMPILED = Path(__file__).parent / "compiled"


def compile_all(folder: Path = COMPILED) -> list[Path]:
    """Write one YAML for each placement profile; the default (GPU) one has the plain name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in PROFILES:
        path = folder / ("training.yaml" if name == "gpu" else f"training-{name}.yaml")
        compiler.Compiler().compile(training_pipeline(name), str(path))
        paths.append(path)
    return paths


if __name__ == "__main__":
    compile_all()
