"""The committed YAML is what the code compiles to, and a cluster could read it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.compile import COMPILED, compile_all
from rgsud_pipelines.placement import GPU_STAGES, profile, profiles


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


def test_what_changes_a_result_is_a_parameter_and_run_ids_are_not(fresh: Path) -> None:
    spec, platform = documents(fresh / "training.yaml")
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == {"config", "rainy", "clean", "paired", "workdir"}
    for executor in spec["deploymentSpec"]["executors"]:
        component = spec["components"][executor.replace("exec-", "comp-")]
        # The promotion computes nothing: it moves aliases, as the gate (which has the settings) decided.
        assert ("config" in component["inputDefinitions"]["parameters"]) == (executor != "exec-promotion")
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert executor["fieldPathAsEnv"] == [{"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}]
        assert executor["emptyDirMounts"][0]["mountPath"] == "/dev/shm"


def test_gpus_go_to_the_stages_that_use_them(fresh: Path) -> None:
    for name, expected in (("training.yaml", GPU_STAGES), ("training-cpu.yaml", frozenset())):
        executors = documents(fresh / name)[0]["deploymentSpec"]["executors"]
        wanting = {key for key, value in executors.items() if "accelerator" in value["container"]["resources"]}
        assert wanting == {f"exec-{stage}" for stage in expected if f"exec-{stage}" in executors}


def test_containers_install_nothing(fresh: Path) -> None:
    text = (fresh / "training.yaml").read_text()
    assert "pip install" not in text and "pip3 install" not in text


def test_an_unknown_placement_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"unknown placement 'tpu'; choose one of {', '.join(profiles())}"):
        profile("tpu")
