"""Compile the DAGs to compiled/*.yaml, which is committed: a change of a DAG is a reviewable diff.

`rgsud pipeline compile` (or `make compile`).
"""

from __future__ import annotations

from pathlib import Path

from kfp import compiler

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.derain import derain_pipeline
from rgsud_pipelines.placement import profiles
from rgsud_pipelines.retraining import retraining_pipeline
from rgsud_pipelines.training import training_pipeline

COMPILED = Path(__file__).parent / "compiled"
PIPELINES = {"training": training_pipeline, "retraining": retraining_pipeline, "derain": derain_pipeline}


def compile_all(folder: Path = COMPILED) -> list[Path]:
    """Write one YAML for each pipeline and placement profile."""
    return [compile_one(pipeline, placement, folder) for pipeline in PIPELINES for placement in profiles()]


def compile_one(pipeline: str, placement: str, folder: Path) -> Path:
    """Write the YAML of one pipeline; the default (GPU) placement has the plain name.

    Raises ConfigError: unknown pipeline or placement.
    """
    if pipeline not in PIPELINES:
        raise ConfigError(f"unknown pipeline {pipeline!r}; choose one of {', '.join(PIPELINES)}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{pipeline}.yaml" if placement == "gpu" else f"{pipeline}-{placement}.yaml")
    compiler.Compiler().compile(PIPELINES[pipeline](placement), str(path))
    return path


if __name__ == "__main__":
    compile_all()
