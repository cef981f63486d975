"""The committed YAML is what the code compiles to, and a cluster could read it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.compile import COMPILED, compile_all
from rgsud_pipelines.placement import GPU_STAGES, profile, profiles

STAGES = {"data-prep", "reward-recycling", "sr-training", "evaluation", "export"}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compile_all(folder)
    return folder


def documents(path: Path) -> tuple[dict, dict]:
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform


def test_the_committed_files_are_up_to_date(fresh: Path) -> None:
    committed = {path.name: path.read_text() for path in COMPILED.glob("*.yaml")}
    assert committed == {path.name: path.read_text() for path in fresh.glob("*.yaml")}, "run `make compile` and commit"


@pytest.mark.parametrize("name", ["training.yaml", "training-cpu.yaml"])
def test_strict_parse_and_the_five_stages(fresh: Path, name: str) -> None:
    spec, platform = documents(fresh / name)
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        json_format.ParseDict(executor, kubernetes_pb2.KubernetesExecutorConfig())
    assert set(parsed.root.dag.tasks) == STAGES
    assert set(executors) == set(spec["deploymentSpec"]["executors"]) == {f"exec-{stage}" for stage in STAGES}


def test_what_changes_a_result_is_a_parameter_and_run_ids_are_not(fresh: Path) -> None:
    spec, platform = documents(fresh / "training.yaml")
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == {"config", "rainy", "clean", "paired", "workdir"}
    for task in spec["root"]["dag"]["tasks"].values():
        assert task["inputs"]["parameters"]["config"] == {"componentInputParameter": "config"}
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert executor["fieldPathAsEnv"] == [{"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}]
        assert executor["emptyDirMounts"][0]["mountPath"] == "/dev/shm"


def test_gpus_go_to_the_stages_that_use_them(fresh: Path) -> None:
    for name, expected in (("training.yaml", GPU_STAGES), ("training-cpu.yaml", frozenset())):
        executors = documents(fresh / name)[0]["deploymentSpec"]["executors"]
        wanting = {key for key, value in executors.items() if "accelerator" in value["container"]["resources"]}
        assert wanting == {f"exec-{stage}" for stage in expected & STAGES}


def test_containers_install_nothing(fresh: Path) -> None:
    text = (fresh / "training.yaml").read_text()
    assert "pip install" not in text and "pip3 install" not in text


def test_an_unknown_placement_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"unknown placement 'tpu'; choose one of {', '.join(profiles())}"):
        profile("tpu")
