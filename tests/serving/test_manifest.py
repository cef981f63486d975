"""The InferenceService of a version, made by the promotion and by `rgsud registry manifest`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from rgsud_lib.config import ServingConfig, serving_config
from rgsud_lib.errors import RegistryError
from rgsud_lib.registry import promotion
from rgsud_lib.serving.manifest import inference_service

COMMITTED = Path(__file__).parents[2] / "manifests" / "serving" / "inference-service.yaml"
IMAGE = "registry.example.com/rgsud@sha256:" + "0" * 64


def version(source: str = "s3://rgsud/mlflow/1/models/m-0/artifacts", number: int = 1, **tags: str) -> SimpleNamespace:
    return SimpleNamespace(version=number, source=source, tags={"rgsud.weights_digest": "0" * 64} | tags)


def test_the_committed_one_is_made_by_the_same_hand() -> None:
    assert COMMITTED.read_text() == inference_service(version(), IMAGE)


def test_model_and_image_are_pinned_and_the_server_understands_its_environment() -> None:
    written = yaml.safe_load(inference_service(version(number=12), IMAGE))
    assert written["metadata"]["labels"]["app.kubernetes.io/version"] == "12"
    predictor = written["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["image"] == IMAGE
    given = {item["name"]: item["value"] for item in container["env"]}
    assert given["STORAGE_URI"] == "s3://rgsud/mlflow/1/models/m-0/artifacts"
    assert given["RGSUD_SERVE_MODEL"] == "/mnt/models", "where KServe puts it"
    settings = serving_config(environment=given)
    assert (settings.version, settings.weights_digest) == ("12", "0" * 64)
    defaults = ServingConfig()
    assert predictor["terminationGracePeriodSeconds"] > defaults.notice_seconds + defaults.drain_seconds


def test_what_looks_like_yaml_is_quoted() -> None:
    source = 's3://bucket/a: b # "c"\n- d'
    written = yaml.safe_load(inference_service(version(source), IMAGE))
    assert written["spec"]["predictor"]["containers"][0]["env"][0]["value"] == source


@pytest.mark.parametrize("source", ["/home/me/mlartifacts/1", "file:///x", "mlflow-artifacts:/1/models/m"])
def test_a_model_that_no_cluster_finds_is_refused(source: str) -> None:
    with pytest.raises(RegistryError, match=re.escape(f"lies in {source}, which KServe cannot fetch")):
        inference_service(version(source), IMAGE)


def test_the_promotion_keeps_it_with_the_gates_run_and_is_none_the_worse_without(monkeypatch) -> None:
    logged = []
    client = SimpleNamespace(log_text=lambda *given: logged.append(given))
    registry = SimpleNamespace(client=client, address="here")
    monkeypatch.delenv("RGSUD_IMAGE", raising=False)
    tags = {promotion.GATE_RUN: "run-1"}
    promotion._log_manifest(registry, version(**tags))
    monkeypatch.setenv("RGSUD_IMAGE", IMAGE)
    promotion._log_manifest(registry, version("/local", **tags))
    assert logged == []
    promotion._log_manifest(registry, version(**tags))
    assert logged == [("run-1", inference_service(version(), IMAGE), "inference-service.yaml")]
    assert json.dumps(IMAGE) in logged[0][1]
