"""`rgsud pipeline submit` and `upload` on a server that refuses what the published API does not know."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import yaml

from rgsud_components._image import DEVELOPMENT
from rgsud_lib.config import load_config
from rgsud_lib.errors import ConfigError
from rgsud_pipelines.cluster import package
from rgsud_pipelines.cluster.kfp_session import KubeflowError
from rgsud_pipelines.compile import COMPILED
from rgsud_pipelines.placement_file import read_placement

from .conftest import PINNED, SOURCES


def committed(name: str) -> dict:
    text = (COMPILED / name).read_text().replace(DEVELOPMENT, PINNED)
    pipeline, platform = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return {"pipeline_spec": pipeline, "platform_spec": platform}


def test_the_compiled_yaml_and_the_parameters_are_sent(stub, rgsud) -> None:
    result = rgsud("submit", *SOURCES, "--preset", "cpu", "--set", "training.seed=7", "--service-account", "trainer")
    assert result.exit_code == 0, result.output
    (run,) = stub.sent("run_service_create_run")
    assert run["pipeline_spec"] == committed("training.yaml")
    config = load_config("cpu", ["training.seed=7"])
    assert run["runtime_config"]["parameters"] == {
        "config": config.model_dump_json(),
        "rainy": "s3://photos/rain",
        "clean": "s3://photos/clean",
        "workdir": "s3://photos/rgsud",
    }
    assert run["service_account"] == "trainer"
    assert re.fullmatch(rf"cpu {config.digest()[:8]} \d{{4}}-\d\d-\d\d \d\d:\d\d", run["display_name"])
    assert stub.sent("experiment_service_create_experiment")[0]["display_name"] == "rgsud"
    assert re.search(rf"{stub.url}/#/runs/details/run-\d", result.stdout)


def test_a_prefix_is_derained_by_the_champion_or_the_model_named(stub, rgsud) -> None:
    places = ("--rainy", "s3://photos/new", "--derained", "s3://photos/derained")
    assert rgsud("submit", "derain", *places).exit_code == 0
    assert rgsud("submit", "derain", *places, "--model", "models:/rgsud/3").exit_code == 0
    first, second = (run["runtime_config"]["parameters"] for run in stub.sent("run_service_create_run"))
    assert (first["rainy"], first["derained"], "model" in first) == ("s3://photos/new", "s3://photos/derained", False)
    assert second["model"] == "models:/rgsud/3"
    refused = rgsud("submit", "derain", *places, "--model", "my/model.safetensors")
    assert "--model 'my/model.safetensors' is a path of this machine" in str(refused.exception)
    assert len(stub.sent("run_service_create_run")) == 2


def test_names_and_placement_are_the_users(stub, rgsud) -> None:
    rgsud("submit", *SOURCES, "--placement", "cpu", "--experiment", "rain", "--name", "first")
    assert rgsud("submit", *SOURCES, "--placement", "cpu", "--experiment", "rain", "--name", "second").exit_code == 0
    assert [run["display_name"] for run in stub.sent("run_service_create_run")] == ["first", "second"]
    assert stub.sent("run_service_create_run")[0]["pipeline_spec"] == committed("training-cpu.yaml")
    assert len(stub.sent("experiment_service_create_experiment")) == 1
    assert stub.sent("run_service_create_run")[0]["service_account"] == read_placement().common.service_account


def test_what_is_wrong_is_never_sent(stub, rgsud) -> None:
    mistakes = "--set training.stepps=3", "--rainy my/rain", "--placement tpu", "--placement local"
    for mistake in mistakes:
        result = rgsud("submit", *SOURCES, *mistake.split())
        assert isinstance(result.exception, ConfigError), result.output
    assert stub.requests == []


def test_without_cache_is_in_what_is_sent(stub, rgsud) -> None:
    assert rgsud("submit", *SOURCES, "--no-cache").exit_code == 0
    (run,) = stub.sent("run_service_create_run")
    options = re.findall(r'"cachingOptions": (\{[^}]*\})', json.dumps(run["pipeline_spec"]))
    assert len(options) >= 5 and set(options) == {'{"enableCache": false}'}


def test_an_uploaded_version_pinned_or_the_latest(stub, rgsud) -> None:
    assert isinstance(rgsud("submit", *SOURCES, "--version", "latest").exception, KubeflowError)
    name, version = rgsud("upload").stdout.split()
    assert name == "rgsud-training" and re.fullmatch(r"\d\S*-[0-9a-f]{12}", version)
    for wanted in (version, "latest"):
        assert rgsud("submit", *SOURCES, "--version", wanted).exit_code == 0
    (uploaded,) = stub.tables["pipeline_version"]
    reference = {key: uploaded[key] for key in ("pipeline_id", "pipeline_version_id")}
    runs = stub.sent("run_service_create_run")
    assert [run["pipeline_version_reference"] for run in runs] == [reference, reference]
    assert not any("pipeline_spec" in run for run in runs)
    unknown = rgsud("submit", *SOURCES, "--version", "0.0.0-abc").exception
    assert f"'rgsud-training' has no version '0.0.0-abc'; the newest: {version}" in str(unknown)


def test_an_uploaded_version_needs_no_image_here(stub, rgsud, monkeypatch) -> None:
    rgsud("upload")
    monkeypatch.setattr(package, "compile_one", None)
    assert rgsud("submit", *SOURCES, "--version", "latest").exit_code == 0
    refused = rgsud("submit", *SOURCES, "--version", "latest", "--rainy", "my/rain").exception
    assert "is a path of this machine" in str(refused)
    assert stub.writes.count("run_service_create_run") == stub.writes.count("experiment_service_create_experiment") == 1


def test_a_version_cannot_be_uncached(stub, rgsud) -> None:
    result = rgsud("submit", *SOURCES, "--version", "latest", "--no-cache")
    assert "leave --version out" in str(result.exception) and stub.requests == []


def test_uploading_twice_makes_one_version(stub, rgsud) -> None:
    first, second = rgsud("upload").stdout, rgsud("upload").stdout
    assert first == second and "rgsud-training" in first
    assert len(stub.tables["pipeline"]) == len(stub.sent("upload_pipeline_version")) == 1
    assert stub.sent("upload_pipeline_version")[0] == committed("training.yaml")
    assert rgsud("upload", "--placement", "cpu").stdout.startswith("rgsud-training-cpu ")
    assert len(stub.tables["pipeline"]) == 2


def test_the_command_takes_the_image_from_the_environment(stub) -> None:
    command = [sys.executable, "-c", "from rgsud_pipelines.cli import main; main()", "pipeline", "submit", *SOURCES]
    environment = {**os.environ, "RGSUD_IMAGE": PINNED, "KFP_HOST": stub.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert stub.sent("run_service_create_run")[0]["pipeline_spec"] == committed("training.yaml")
