"""What is sent to Kubeflow, and all that can be wrong with it.

A compiled pipeline and its parameters are checked here, before anything is sent: settings, folders that pods cannot
see, an image that can change its content.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rgsud_lib import __version__
from rgsud_lib.config import Config
from rgsud_lib.errors import ConfigError
from rgsud_lib.storage.s3 import is_remote
from rgsud_pipelines.compile import compile_one
from rgsud_pipelines.placement import LOCAL, profiles

PINNED = re.compile(r"\S+@sha256:[0-9a-f]{64}")
S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?P<prefix>/.*)?")


@dataclass(frozen=True)
class Package:
    """A compiled pipeline; `name` is what it is uploaded as, for example rgsud-training-cpu."""

    name: str
    text: str

    @property
    def version(self) -> str:
        """Equal for equal code and YAML, so that uploading twice makes one version."""
        return f"{__version__}-{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The two documents of the YAML, as the API wants them."""
        pipeline, platform = yaml.load_all(self.text, Loader=yaml.CSafeLoader)  # the plain one takes a second
        return {"pipeline_spec": pipeline, "platform_spec": platform}


def package_name(pipeline: str, placement: str) -> str:
    """What a pipeline is uploaded as: one name for each placement, so that "latest" stays on its nodes."""
    return f"rgsud-{pipeline}" if placement == "gpu" else f"rgsud-{pipeline}-{placement}"


def compile_package(pipeline: str, placement: str, cache: bool = True) -> Package:
    """Compile a pipeline for a cluster. With `cache` each task keeps its own setting, without none is cached.

    Raises ConfigError: unknown pipeline or placement, an image that is not pinned by digest.
    """
    if placement == LOCAL:
        raise ConfigError(f"placement {LOCAL!r} is this machine's; choose one of {', '.join(profiles())}")
    with tempfile.TemporaryDirectory() as folder:
        path = compile_one(pipeline, placement, Path(folder))
        package = Package(package_name(pipeline, placement), path.read_text())
    spec = package.spec
    for name, executor in spec["pipeline_spec"]["deploymentSpec"]["executors"].items():
        image = executor["container"]["image"]
        if not PINNED.fullmatch(image):
            raise ConfigError(
                f"{name} would run in {image!r}, which a cluster cannot pull or which can change under its name; "
                "set RGSUD_IMAGE=registry/rgsud@sha256:... (`docker buildx imagetools inspect` prints the digest)"
            )
    if cache:
        return package
    # kfp.Client's own switch changes the top level only: tasks in an exit handler or a condition would stay cached.
    for dag in _dags(spec["pipeline_spec"]):
        for task in dag["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
    return Package(package.name, yaml.dump_all(spec.values(), Dumper=yaml.CSafeDumper))


def run_parameters(spec: dict[str, Any], config: Config, **locations: str | None) -> dict[str, str]:
    """What a run is called with: the settings as one JSON document, and the locations and the model where given.

    Raises ConfigError: a missing or unknown parameter, a location that pods cannot see.
    """
    pipeline = spec.get("pipeline_spec", spec)
    inputs = pipeline["root"]["inputDefinitions"]["parameters"]
    given = {name: value for name, value in locations.items() if value}
    for name, value in given.items():
        if name not in inputs:
            raise ConfigError(f"--{name}: {pipeline['pipelineInfo']['name']} has no such parameter; leave it out")
        _check_location(name, value)
    required = {name for name, kind in inputs.items() if not kind.get("isOptional")}
    if missing := sorted(required - set(given) - {"config"}):
        raise ConfigError(f"{pipeline['pipelineInfo']['name']} needs {' and '.join(f'--{name}' for name in missing)}")
    return {"config": config.model_dump_json(), **given}


def run_name(config: Config) -> str:
    """For example `paper 0123abcd 2026-11-24 14:30` (UTC)."""
    return f"{config.preset} {config.digest()[:8]} {datetime.now(UTC):%Y-%m-%d %H:%M}"


def _dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pipeline's own graph and those of its exit handlers, conditions and loops."""
    components = spec.get("components", {}).values()
    return (part["dag"] for part in (spec["root"], *components) if "dag" in part)


def _check_location(name: str, value: str) -> None:
    if name == "model" and value.startswith(("models:/", "runs:/")):
        return
    if not is_remote(value):
        raise ConfigError(
            f"--{name} {value!r} is a path of this machine: the cluster's pods do not see it; "
            "copy it to object storage and give s3://bucket/prefix"
        )
    match = S3.fullmatch(value)
    if not match or (name == "workdir" and not (match["prefix"] or "").strip("/")):
        raise ConfigError(f"--{name} {value!r}: expected s3://bucket/prefix")
