"""The compiled DAGs as a cluster reads them: strictly parsed, without a loose end, in the order of the method."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from rgsud_pipelines.compile import COMPILED

FILES = sorted(path.name for path in COMPILED.glob("*.yaml"))
TRAININGS = [name for name in FILES if not name.startswith("derain")]
STAGES = ["data-prep", "reward-recycling", "sr-training", "evaluation", "export"]
DERAIN = ["derain-plan", "derain-shard", "derain-summary"]
UNCACHED = {"finalize", "data-plan", "promotion-gate", "promotion", "new-data-check", *DERAIN}
COMPLETED = pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED
Spec = pipeline_spec_pb2.PipelineSpec


def read(name: str) -> tuple[Spec, pipeline_spec_pb2.PipelineDeploymentConfig, dict]:
    """The pipeline and its executors, parsed so that an unknown field is an error."""
    document, platform = yaml.safe_load_all((COMPILED / name).read_text())
    spec = json_format.ParseDict(document, Spec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    kubernetes = platform["platforms"].pop("kubernetes")["deploymentSpec"]["executors"]
    assert not platform["platforms"]
    for executor in kubernetes.values():
        json_format.ParseDict(executor, kubernetes_pb2.KubernetesExecutorConfig())
    deployment = json_format.ParseDict(document["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    assert set(kubernetes) == set(deployment.executors)
    return spec, deployment, document


def dags(spec: Spec) -> dict[str, pipeline_spec_pb2.ComponentSpec]:
    inner = {name: part for name, part in spec.components.items() if part.HasField("dag")}
    return {"root": spec.root, **inner}


@pytest.mark.parametrize("name", FILES)
def test_every_reference_leads_somewhere(name: str) -> None:
    spec, deployment, _ = read(name)
    assert (spec.schema_version, spec.sdk_version[:4]) == ("2.1.0", "kfp-")
    for component in spec.components.values():
        if component.WhichOneof("implementation") == "executor_label":
            assert deployment.executors[component.executor_label].container.image
    for dag in dags(spec).values():
        tasks = dag.dag.tasks
        for task in tasks.values():
            ports = spec.components[task.component_ref.name].input_definitions
            assert set(task.dependent_tasks) <= set(tasks)
            for value in task.inputs.parameters.values():
                if value.HasField("component_input_parameter"):
                    assert value.component_input_parameter in dag.input_definitions.parameters
            required = {key for key, port in ports.parameters.items() if not port.is_optional}
            given = {*task.inputs.parameters, task.parameter_iterator.item_input}
            assert required <= given
            assert set(ports.artifacts) <= set(task.inputs.artifacts)
            for value in task.inputs.artifacts.values():
                if value.HasField("task_output_artifact"):
                    assert value.task_output_artifact.producer_task in tasks
                else:
                    assert value.component_input_artifact in dag.input_definitions.artifacts


@pytest.mark.parametrize("name", TRAININGS)
def test_the_exit_handler_comes_last_whatever_happened_and_gets_the_final_status(name: str) -> None:
    spec, _, _ = read(name)
    tasks = spec.root.dag.tasks
    assert set(tasks) == {"exit-handler-1", "finalize"}
    assert tasks["finalize"].trigger_policy.strategy == COMPLETED
    assert list(tasks["finalize"].dependent_tasks) == ["exit-handler-1"]
    assert tasks["finalize"].inputs.parameters["status"].task_final_status.producer_task == "exit-handler-1"


@pytest.mark.parametrize("name", TRAININGS)
def test_the_stages_hand_on_their_bundles_in_the_methods_order(name: str) -> None:
    spec, _, _ = read(name)
    core = next(dag for dag in dags(spec).values() if "data-prep" in dag.dag.tasks).dag.tasks
    assert set(STAGES) <= set(core)
    for index, stage in enumerate(STAGES):
        producers = {port.task_output_artifact.producer_task for port in core[stage].inputs.artifacts.values()}
        assert producers <= set(STAGES[:index]) and producers == set(core[stage].dependent_tasks) & set(STAGES)
        assert index == 0 or "data-prep" in producers


@pytest.mark.parametrize("name", sorted({*FILES} - {*TRAININGS}))
def test_derain_plans_then_works_in_parallel_and_sums_up_at_the_end(name: str) -> None:
    spec, _, _ = read(name)
    tasks = spec.root.dag.tasks
    assert set(tasks) == {"derain-plan", "for-loop-1", "derain-summary"}
    assert list(tasks["for-loop-1"].dependent_tasks) == ["derain-plan"]
    assert tasks["for-loop-1"].iterator_policy.parallelism_limit == 8
    assert list(tasks["derain-summary"].dependent_tasks) == ["for-loop-1"]
    assert set(dags(spec)["comp-for-loop-1"].dag.tasks) == {"derain-shard"}
    parameters = spec.root.input_definitions.parameters
    assert set(parameters) == {"config", "rainy", "derained", "model"}
    assert parameters["model"].default_value.string_value == "models:/rgsud@champion"


@pytest.mark.parametrize("name", TRAININGS)
def test_what_a_decision_guards(name: str) -> None:
    spec, _, _ = read(name)
    guarded = {}
    for dag in dags(spec).values():
        for task in dag.dag.tasks.values():
            if task.trigger_policy.condition:
                inside = spec.components[task.component_ref.name].dag.tasks
                guarded |= dict.fromkeys(set(inside) & {"data-prep", "promotion"}, task.trigger_policy.condition)
    expected = {"promotion": "inputs.parameter_values['pipelinechannel--promotion-gate-Output'] == 'promote'"}
    if name.startswith("retraining"):
        expected["data-prep"] = "inputs.parameter_values['pipelinechannel--new-data-check-Output'] == 'train'"
    assert guarded == expected


@pytest.mark.parametrize("name", FILES)
def test_only_what_depends_on_more_than_its_arguments_is_never_cached(name: str) -> None:
    spec, _, _ = read(name)
    leaves = [
        (task_name, task)
        for dag in dags(spec).values()
        for task_name, task in dag.dag.tasks.items()
        if not spec.components[task.component_ref.name].HasField("dag")
    ]
    looks_again = {"data-prep"} if name.startswith("retraining") else set()  # at what an earlier model learnt from
    expected = (UNCACHED | looks_again) & {task_name for task_name, _ in leaves}
    assert {task_name for task_name, task in leaves if not task.caching_options.enable_cache} == expected


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_this_machine_nor_a_secret_nor_a_name_that_moves_is_compiled_in(name: str) -> None:
    spec, deployment, document = read(name)
    text = (COMPILED / name).read_text()
    assert not re.search(r"/(work|tmp|root)/|/home/(?!rgsud/)|pip3? install|https?://", text)
    assert not re.search(r"(?i)(secret_access_key|password|token)\w*[:=] *['\"]?\w", text)
    images = {executor.container.image for executor in deployment.executors.values()}
    assert len(images) == 1
    assert re.fullmatch(r"localhost/\S+|\S+@sha256:[0-9a-f]{64}", images.pop())


def test_a_pinned_image_is_compiled_in(tmp_path: Path) -> None:
    pinned = "registry.example/team/rgsud@sha256:" + "0123456789abcdef" * 4
    code = "import sys; from pathlib import Path; from rgsud_pipelines.compile import compile_one; \
compile_one('training', 'cpu', Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, env={**os.environ, "RGSUD_IMAGE": pinned}, check=True, capture_output=True)
    for path in tmp_path.glob("*.yaml"):
        assert "localhost/" not in path.read_text() and pinned in path.read_text()
