"""Runs and uploaded versions on a Kubeflow Pipelines server."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_server_api import (
    V2beta1Pipeline,
    V2beta1PipelineVersion,
    V2beta1PipelineVersionReference,
    V2beta1Run,
    V2beta1RuntimeConfig,
)

from rgsud_pipelines.cluster.kfp_session import Client, KubeflowError
from rgsud_pipelines.cluster.package import Package
from rgsud_pipelines.placement_file import read_placement

LATEST = "latest"


@dataclass(frozen=True)
class Source:
    """What a run runs: its compiled documents, and how a request names them."""

    spec: dict[str, Any]
    request: dict[str, Any]


def inline(package: Package) -> Source:
    """The compiled pipeline itself is sent along."""
    return Source(package.spec, {"pipeline_spec": package.spec})


def start(client: Client, job: dict[str, Any]) -> V2beta1Run:
    """One run of a `job(...)`, now."""
    return client.runs.run_service_create_run(run=V2beta1Run(**job))


def job(
    client: Client,
    source: Source,
    parameters: dict[str, str],
    experiment: str,
    name: str,
    service_account: str | None,
) -> dict[str, Any]:
    """What a run and a recurring run have in common; the experiment is made where it is missing.

    The pods' identity is `service_account`, else the placement file's.
    """
    with redirect_stdout(sys.stderr):  # kfp prints a link; standard output is for the run's own
        experiment_id = client.create_experiment(experiment).experiment_id
    return {
        "display_name": name,
        "experiment_id": experiment_id,
        "runtime_config": V2beta1RuntimeConfig(parameters=parameters),
        "service_account": service_account or read_placement().common.service_account,
        **source.request,
    }


def upload(client: Client, package: Package) -> V2beta1PipelineVersion:
    """The uploaded version of `package`; what is there already is not uploaded again."""
    pipeline = _pipeline(client, package.name)
    if pipeline is None:
        wanted = V2beta1Pipeline(
            name=package.name, display_name=package.name, namespace=client.get_user_namespace() or None
        )
        pipeline = client.pipelines.pipeline_service_create_pipeline(pipeline=wanted)
    if found := _versions(client, pipeline, package.version):
        return found[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{package.name}.yaml")
        file.write_text(package.text)
        return client.pipeline_uploads.upload_pipeline_version(
            str(file), name=package.version, display_name=package.version, pipelineid=pipeline.pipeline_id
        )


def uploaded(client: Client, name: str, version: str, follow: bool = False) -> Source:
    """A version of the uploaded pipeline `name`: the one called `version`, or the newest for "latest".

    With `follow`, "latest" is not settled now: each run of a schedule takes the newest version there is by then.

    Raises KubeflowError: no such pipeline or version.
    """
    pipeline = _pipeline(client, name)
    if pipeline is None:
        raise KubeflowError(f"no pipeline {name!r} was uploaded yet; run `rgsud pipeline upload` first")
    newest = client.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc").pipeline_versions or []
    found = newest if version == LATEST else _versions(client, pipeline, version)
    if not found:
        known = ", ".join(item.display_name for item in newest) or "none; run `rgsud pipeline upload` first"
        raise KubeflowError(f"pipeline {name!r} has no version {version!r}; the newest: {known}")
    reference = V2beta1PipelineVersionReference(
        pipeline_id=pipeline.pipeline_id,
        pipeline_version_id=None if follow and version == LATEST else found[0].pipeline_version_id,
    )
    return Source(found[0].pipeline_spec, {"pipeline_version_reference": reference})


def find_experiment(client: Client, name: str) -> str:
    """Id of an experiment. Raises KubeflowError: no such."""
    try:
        return client.get_experiment(experiment_name=name).experiment_id
    except ValueError as error:
        raise KubeflowError(f"no experiment is called {name!r}; the page lists them") from error


def named(name: str) -> str:
    """The API's filter for one name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})


def _pipeline(client: Client, name: str) -> V2beta1Pipeline | None:
    # kfp.Client.get_pipeline_id looks in the shared namespace only.
    found = client.list_pipelines(filter=named(name), namespace=client.get_user_namespace()).pipelines
    return found[0] if found else None


def _versions(client: Client, pipeline: V2beta1Pipeline, name: str) -> list[V2beta1PipelineVersion]:
    return client.list_pipeline_versions(pipeline.pipeline_id, filter=named(name)).pipeline_versions or []
