"""placement.yaml arrives in the compiled YAML, and a mistake in it is named."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler, dsl
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.placement import CACHE, GPU_STAGES, LOCAL, TRAINING_STAGES, USER, place, profile, profiles
from rgsud_pipelines.placement_file import PACKAGED, read_placement

IMAGE = f"registry.example.com/rgsud@sha256:{'0' * 64}"
STAGES = {"data-prep", "promotion-gate", *TRAINING_STAGES}


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def data_prep():
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def reward_recycling():
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sr_training():
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promotion_gate():
    pass


@cache
def compiled_profile(name: str) -> Compiled:
    with TemporaryDirectory() as folder:
        return Compiled(name, Path(folder))


class Compiled:
    """A pipeline of four stages at a placement, as the cluster would read it."""

    def __init__(self, name: str, folder: Path, file: Path | None = None) -> None:
        @dsl.pipeline(name="placed")
        def placed():
            for stage in (data_prep, reward_recycling, sr_training, promotion_gate):
                place(stage(), profile(name, file))

        path = folder / "placed.yaml"
        compiler.Compiler().compile(placed, str(path))
        self.spec, platform = yaml.safe_load_all(path.read_text())
        executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.pods = {
            name.removeprefix("exec-"): json_format.ParseDict(value, kubernetes_pb2.KubernetesExecutorConfig())
            for name, value in executors.items()
        }

    def resources(self, stage: str) -> dict:
        return self.spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]["resources"]

    def variables(self, stage: str) -> dict[str, str]:
        container = self.spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
        return {item["name"]: item["value"] for item in container.get("env", [])}

    def retries(self, stage: str) -> dict:
        return self.spec["root"]["dag"]["tasks"][stage]["retryPolicy"]


@pytest.fixture(params=["cpu", "gpu", "gpu-spot", "gpu-multi"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def edited(folder: Path, *keys: str, value: object) -> Path:
    """The packaged file with one value changed."""
    document = yaml.safe_load(PACKAGED.read_text())
    *above, last = keys
    section = document
    for key in above:
        section = section[key]
    section[last] = value
    path = folder / "placement.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_packaged_file_has_the_four_profiles() -> None:
    assert profiles() == ("cpu", "gpu", "gpu-spot", "gpu-multi")


def test_every_pod_has_what_all_stages_need(name: str) -> None:
    compiled, common = compiled_profile(name), read_placement().common
    assert set(compiled.pods) == STAGES
    for stage, pod in compiled.pods.items():
        assert [(item.name, item.field_path) for item in pod.field_path_as_env] == [
            ("KFP_RUN_ID", "metadata.labels['pipeline/runid']")
        ]
        maps = {(item.config_map_name, item.optional): item for item in pod.config_map_as_env}
        required, optional = maps["rgsud-endpoints", False], maps["rgsud-endpoints", True]
        assert [item.env_var for item in required.key_to_env] == ["MLFLOW_TRACKING_URI"]
        assert "AWS_ENDPOINT_URL" in [item.env_var for item in optional.key_to_env]
        (secret,) = pod.secret_as_env
        assert (secret.secret_name, secret.optional) == ("rgsud-s3", False)
        assert [item.env_var for item in secret.key_to_env] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        mounts = {item.mount_path: item for item in pod.empty_dir_mounts}
        assert set(mounts) == {"/dev/shm", CACHE}
        assert mounts["/dev/shm"].medium == "Memory" and mounts["/dev/shm"].size_limit
        assert mounts[CACHE].medium == "" and mounts[CACHE].size_limit
        own = {"app.kubernetes.io/component": stage, "rgsud-placement": name}
        assert "cost-center" in common.labels and dict(pod.pod_metadata.labels) == {**common.labels, **own}
        assert (pod.security_context.run_as_user, pod.security_context.run_as_non_root) == (USER, True)
        assert common.annotations and dict(pod.pod_metadata.annotations) == common.annotations
        assert pod.image_pull_policy == common.image_pull_policy
        assert tuple(item.secret_name for item in pod.image_pull_secret) == common.image_pull_secrets


def test_gpus_and_their_nodes_go_to_the_stages_that_use_them(name: str) -> None:
    compiled = compiled_profile(name)
    for stage, pod in compiled.pods.items():
        wanted = name != "cpu" and stage in GPU_STAGES
        accelerator = compiled.resources(stage).get("accelerator", {})
        assert accelerator.get("resourceType") == ("nvidia.com/gpu" if wanted else None)
        assert compiled.variables(stage).get("RGSUD_GPUS") == accelerator.get("resourceCount")
        several = name == "gpu-multi" and stage in TRAINING_STAGES
        assert (int(accelerator.get("resourceCount", 0)) > 1) == several
        assert ("nvidia.com/gpu" in {item.key for item in pod.tolerations}) == wanted
        assert bool(pod.node_selector.labels or pod.node_affinity) == wanted


def test_resources_retries_and_timeouts_are_the_files(name: str) -> None:
    compiled, classes = compiled_profile(name), profile(name).classes
    kinds = {"data-prep": classes.light, "promotion-gate": classes.inference, "sr-training": classes.training}
    for stage, kind in kinds.items():
        resources = compiled.resources(stage)
        assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == (kind.cpu.request, kind.cpu.limit)
        memory = resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]
        assert memory == (kind.memory.request, kind.memory.limit)
        assert compiled.retries(stage) == {
            "maxRetryCount": kind.retries.count,
            "backoffDuration": f"{kind.retries.wait_seconds}s",
            "backoffFactor": kind.retries.factor,
            "backoffMaxDuration": f"{kind.retries.longest_wait_seconds}s",
        }
        assert compiled.pods[stage].active_deadline_seconds == 3600 * kind.timeout_hours


def test_spot_training_falls_back_to_nodes_on_demand() -> None:
    compiled = compiled_profile("gpu-spot")
    pod = compiled.pods["sr-training"]
    required, preferred = pod.node_affinity
    assert list(required.match_expressions[0].values) == ["gpu-spot", "gpu"] and not required.HasField("weight")
    assert list(preferred.match_expressions[0].values) == ["gpu-spot"] and preferred.weight == 100
    tolerations = {item.key: (item.operator, item.value, item.effect) for item in pod.tolerations}
    assert tolerations["cloud.google.com/gke-spot"] == ("Equal", "true", "NoSchedule")
    assert not compiled.pods["promotion-gate"].node_affinity


def test_a_task_knows_its_image_and_what_a_price_table_calls_its_nodes() -> None:
    assert compiled_profile("cpu").variables("sr-training") == {"RGSUD_IMAGE": IMAGE, "RGSUD_POOL": "cpu"}


def test_a_service_account_that_brings_the_identity_needs_no_secret(tmp_path: Path) -> None:
    file = edited(tmp_path, "common", "environment", "secrets", value={})
    assert all(not pod.secret_as_env for pod in Compiled("gpu", tmp_path, file).pods.values())


def test_a_local_task_is_left_as_it_is() -> None:
    @dsl.pipeline(name="placed")
    def placed():
        task = place(data_prep(), profile(LOCAL))
        assert not task.platform_config and task._task_spec.retry_policy is None

    assert LOCAL not in profiles() and placed.pipeline_spec.root.dag.tasks


def test_another_file_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = edited(tmp_path, "profiles", "mine", value=yaml.safe_load(PACKAGED.read_text())["profiles"]["gpu"])
    monkeypatch.setenv("RGSUD_PLACEMENT", str(file))
    assert profile("mine").classes == profile("gpu").classes
    with pytest.raises(ConfigError, match="unknown placement 'tpu'; choose one of cpu, gpu, gpu-multi, gpu-spot, mine"):
        profile("tpu")


LIGHT = ("profiles", "gpu", "light")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ((*LIGHT, "node_selectors"), {}, "unknown key 'profiles.gpu.light.node_selectors'; did you mean node_selector"),
        ((*LIGHT, "cpu", "limit"), "two", "profiles.gpu.light.cpu.limit='two': String should match pattern"),
        ((*LIGHT, "cpu", "request"), "8000m", "profiles.gpu.light.cpu: request 8000m exceeds limit 4; lower it"),
        ((*LIGHT, "shared_memory"), "16Gi", "shared_memory 16Gi counts against the memory limit 16Gi; give less"),
        ((*LIGHT, "tolerations"), [{"key": "a", "operator": "Exists", "value": "b"}], "'a': Equal needs a value"),
        ((*LIGHT, "tolerations"), [{"key": "a", "operator": "Has"}], r"tolerations.0.operator='Has': Input should be"),
        ((*LIGHT, "retries"), {"wait_seconds": 1}, "profiles.gpu.light.retries.count: Field required"),
        (("profiles", "gpu", "training"), None, "profiles.gpu.training=None: "),
        (("common", "labels"), {"team": "rain & co"}, "common.labels.team='rain & co': String should match pattern"),
        (("common", "service_account"), "RGSUD", "common.service_account='RGSUD': String should match pattern"),
    ],
)
def test_a_mistake_is_named_by_path_value_and_rule(tmp_path: Path, keys: tuple, value: object, message: str) -> None:
    file = edited(tmp_path, *keys, value=value)
    with pytest.raises(ConfigError, match=message) as caught:
        read_placement(file)
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("operator", "values", "message"),
    [("In", [], "operator In needs values"), ("Gt", ["1", "2"], "Gt takes 1"), ("Exists", ["a"], "Exists takes 0")],
)
def test_affinity_values_must_fit_their_operator(tmp_path: Path, operator: str, values: list, message: str) -> None:
    terms = [{"match": [{"key": "pool", "operator": operator, "values": values}]}]
    with pytest.raises(ConfigError, match=message):
        read_placement(edited(tmp_path, *LIGHT, "node_affinity", value=terms))


def test_a_file_that_is_missing_empty_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the placement .*/none.yaml: No such file.*RGSUD_PLACEMENT"):
        read_placement(tmp_path / "none.yaml")
    file = tmp_path / "placement.yaml"
    for text, message in (("", "Input should be a valid dictionary"), ("a: [", "is no YAML")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_placement(file)


def test_the_user_is_the_images() -> None:
    assert f"USER {USER}:{USER}" in (Path(__file__).parents[2] / "Dockerfile").read_text()
