"""The manifests are valid, hardened, and agree with each other and with placement.yaml."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml

from rgsud_pipelines.placement_file import read_placement

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "manifests"
KUSTOMIZATIONS = sorted(MANIFESTS.rglob("kustomization.yaml"))
FILES = sorted(path for path in MANIFESTS.rglob("*.yaml") if path.name != "kustomization.yaml")
OVERLAYS = [MANIFESTS / "overlays" / name / "kustomization.yaml" for name in ("dev", "prod")]
CRDS = {  # kubernetes-validate has no schema of these; see manifests/README.md
    ("serving.kserve.io/v1beta1", "InferenceService"),
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"),
}
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Thing(NamedTuple):
    kind: str
    namespace: str | None
    name: str


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def read(path: Path) -> dict[str, Any]:
    return documents(path)[0]


def listed(kustomization: Path) -> tuple[list[Path], list[Path]]:
    content, folder = read(kustomization), kustomization.parent
    resources = [(folder / name).resolve() for name in content["resources"]]
    return resources, [(folder / patch["path"]).resolve() for patch in content.get("patches", [])]


def rendered(kustomization: Path) -> dict[Thing, dict[str, Any]]:
    """The objects of a kustomization with their namespaces, patches and images left out."""
    found: dict[Thing, dict[str, Any]] = {}
    namespace = read(kustomization).get("namespace")
    for path in listed(kustomization)[0]:
        inner = rendered(path / "kustomization.yaml") if path.is_dir() else {}
        own = [] if path.is_dir() else documents(path)
        found |= inner
        for item in own:
            place = None if item["kind"] == "Namespace" else namespace or item["metadata"].get("namespace")
            thing = Thing(item["kind"], place, item["metadata"]["name"])
            assert thing not in found, f"{thing} twice in {kustomization}"
            found[thing] = item
    return found


EXTRAS = [MANIFESTS / name / "kustomization.yaml" for name in ("serving", "training")]
ALL = {thing: item for kustomization in (*OVERLAYS, *EXTRAS) for thing, item in rendered(kustomization).items()}


def pods() -> Iterator[tuple[str, str | None, dict[str, Any], dict[str, str]]]:
    """Name, namespace, pod spec and pod labels of all that runs."""
    for thing, item in ALL.items():
        if template := pod_template(item):
            yield thing.name, thing.namespace, template["spec"], template["metadata"]["labels"]
        elif thing.kind == "InferenceService":
            predictor = item["spec"]["predictor"]
            labels = {"serving.kserve.io/inferenceservice": thing.name}  # as KServe sets them
            yield thing.name, thing.namespace, predictor, labels


def pod_template(item: dict[str, Any]) -> dict[str, Any]:
    template = item.get("spec", {}).get("template", {})
    if item["kind"] == "TrainingRuntime":
        (job,) = template["spec"]["replicatedJobs"]
        return job["template"]["spec"]["template"]
    return template


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_every_built_in_kind_fits_its_schema(path: Path) -> None:
    assert not re.search(r"[ \[][&*][a-z]", path.read_text()), "kustomize and YAML anchors do not go together well"
    for item in documents(path):
        try:
            kubernetes_validate.validate(item, "1.32", strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            assert (item["apiVersion"], item["kind"]) in CRDS


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: str(path.parent.relative_to(MANIFESTS)))
def test_a_kustomization_lists_the_files_that_are_there(path: Path) -> None:
    assert set(read(path)) <= {"apiVersion", "kind", "namespace", "resources", "patches", "images"}
    resources, patches = listed(path)
    assert all((item / "kustomization.yaml").exists() for item in resources if item.is_dir())
    files = {item for item in (*resources, *patches) if not item.is_dir()}
    assert files == {item.resolve() for item in path.parent.glob("*.yaml")} - {path.resolve()}


@pytest.mark.parametrize("path", OVERLAYS, ids=["dev", "prod"])
def test_patches_have_something_to_change(path: Path) -> None:
    things = rendered(path)
    for patch in (item for file in listed(path)[1] for item in documents(file)):
        meta = patch["metadata"]
        assert Thing(patch["kind"], meta["namespace"], meta["name"]) in things


@pytest.mark.parametrize("path", [*OVERLAYS, EXTRAS[1]], ids=["dev", "prod", "training"])
def test_images_are_named_by_the_overlay_and_but_for_the_trial_database_by_digest(path: Path) -> None:
    images = {item["name"]: item for item in read(path)["images"]}
    templates = filter(None, map(pod_template, rendered(path).values()))
    used = {container["image"] for template in templates for container in containers(template["spec"])}
    assert used == set(images)
    pinned = {name for name, item in images.items() if re.fullmatch(r"sha256:[0-9a-f]{64}", item.get("digest", ""))}
    assert used - pinned == ({"postgres"} if path.parent.name == "dev" else set())


def test_pods_keep_to_the_restricted_standard() -> None:
    names = set()
    for name, namespace, spec, _ in pods():
        names.add((name, namespace))
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        for container in containers(spec):
            assert RESTRICTED.items() <= container["securityContext"].items()
            assert not container["securityContext"].get("privileged")
            assert {"requests", "limits"} <= set(container["resources"])
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert names == {("mlflow", "rgsud"), ("postgres", "rgsud"), ("rgsud", "rgsud"), ("rgsud", "rgsud-runs")}
    labels = ALL[Thing("Namespace", None, "rgsud")]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_predictor_is_a_pod_to_kubernetes_and_else_has_only_what_kserve_knows() -> None:
    (service,) = (item for thing, item in ALL.items() if thing.kind == "InferenceService")
    predictor = dict(service["spec"]["predictor"])
    scaling = {key: predictor.pop(key) for key in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")}
    assert 0 < scaling["minReplicas"] <= scaling["maxReplicas"] and scaling["scaleMetric"] == "cpu"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": predictor}
    kubernetes_validate.validate(pod, "1.32", strict=True)
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container", "the one that KServe gives the model to"
    assert list(service["spec"]) == ["predictor"]


def test_servers_are_probed() -> None:
    for name, namespace in (("mlflow", "rgsud"), ("postgres", "rgsud"), ("rgsud", "rgsud")):
        (container,) = next(spec["containers"] for *found, spec, _ in pods() if found == [name, namespace])
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_there_is_no_secret_and_each_that_is_used_is_explained() -> None:
    assert not any(thing.kind == "Secret" for thing in ALL)
    readme = (MANIFESTS / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([a-z, -]+) \| (.*) \|$", readme, flags=re.M)
    explained = {(name, place): keys for name, places, keys in rows for place in places.split(", ")}
    for name, namespace, keys in secrets():
        assert all(f"`{key}`" in explained[name, namespace] for key in keys), (name, namespace)


def secrets() -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """Each use of a secret: name, namespace, keys."""
    for _, namespace, spec, _ in pods():
        for container in containers(spec):
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    yield reference["name"], namespace, (reference["key"],)
            for source in container.get("envFrom", []):
                if "secretRef" in source:
                    yield source["secretRef"]["name"], namespace, ()
        for pull in spec.get("imagePullSecrets", []):
            yield pull["name"], namespace, ()
    for thing, item in ALL.items():
        if thing.kind == "ServiceAccount":
            yield from ((secret["name"], thing.namespace, ()) for secret in item.get("secrets", []))
    common = read_placement().common
    for name, keys in common.environment.secrets.items():
        yield name, "rgsud-runs", (*keys.required, *keys.optional)
    yield from ((name, "rgsud-runs", ()) for name in common.image_pull_secrets)


def test_placement_finds_its_config_map_and_service_account() -> None:
    common = read_placement().common
    account = Thing("ServiceAccount", "rgsud-runs", common.service_account)
    assert account in ALL
    (subject,) = ALL[Thing("RoleBinding", "rgsud-runs", common.service_account)]["subjects"]
    assert Thing(*(subject[key] for key in ("kind", "namespace", "name"))) == account
    for name, keys in common.environment.config_maps.items():
        data = dict(ALL[Thing("ConfigMap", "rgsud-runs", name)]["data"])
        assert set(keys.required) <= set(data)
        for overlay in OVERLAYS:
            for patch in (item for file in listed(overlay)[1] for item in documents(file)):
                data |= patch["data"] if patch["metadata"]["name"] == name else {}
        assert set(data) <= {*keys.required, *keys.optional}, "a key that no task gets"


def test_the_training_runtime_fits_the_trainers_models_and_the_placement() -> None:
    (runtime,) = (item for thing, item in ALL.items() if thing.kind == "TrainingRuntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package's own: a field named like its parent's
        from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime

    parsed = TrainerV1alpha1TrainingRuntime.from_dict(runtime)
    assert parsed is not None and parsed.to_dict() == runtime, "a field that the models do not know is left out"
    spec, multi = pod_template(runtime)["spec"], read_placement().profiles["gpu-multi"].training
    assert spec["nodeSelector"] == multi.node_selector and multi.accelerator is not None
    limits = spec["containers"][0]["resources"]["limits"]
    assert limits[multi.accelerator.type] == multi.accelerator.count and limits["memory"] == multi.memory.limit


def test_service_accounts_and_config_maps_of_pods_exist() -> None:
    for _, namespace, spec, _ in pods():
        if "serviceAccountName" in spec:
            assert Thing("ServiceAccount", namespace, spec["serviceAccountName"]) in ALL
        for container in containers(spec):
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert Thing("ConfigMap", namespace, source["configMapRef"]["name"]) in ALL


def test_selectors_select_something() -> None:
    tasks = ("rgsud-runs", read_placement().common.labels)
    running = [(namespace, labels) for _, namespace, _, labels in pods()] + [tasks]
    checked = 0
    for thing, item in ALL.items():
        spec = item.get("spec", {})
        selector = spec.get("selector") if thing.kind == "Service" else None
        if thing.kind in ("NetworkPolicy", "PodDisruptionBudget"):
            selector = (spec.get("podSelector") or spec.get("selector") or {}).get("matchLabels")
        if selector:
            checked += 1
            assert any(
                namespace == thing.namespace and selector.items() <= labels.items() for namespace, labels in running
            ), thing
    assert checked >= 7


def test_what_is_not_allowed_in_rgsud_is_denied() -> None:
    policy = ALL[Thing("NetworkPolicy", "rgsud", "default-deny")]["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_mlflow_is_where_the_tasks_look_for_it_and_answers_to_that_name() -> None:
    address = ALL[Thing("ConfigMap", "rgsud-runs", "rgsud-endpoints")]["data"]["MLFLOW_TRACKING_URI"]
    host = address.removeprefix("http://")
    allowed = ALL[Thing("ConfigMap", "rgsud", "mlflow")]["data"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    name, namespace = host.split(".")[:2]
    port = ALL[Thing("Service", namespace, name)]["spec"]["ports"][0]["port"]
    assert host in allowed and host.endswith(f".svc.cluster.local:{port}")


def test_node_pools_have_the_labels_and_taints_that_placement_asks_for() -> None:
    text = (MANIFESTS / "node-pools.md").read_text()
    for classes in read_placement().profiles.values():
        for kind in (classes.light, classes.inference, classes.training):
            wanted = {f"{key}={value}" for key, value in kind.node_selector.items()}
            terms = [item for term in kind.node_affinity for item in term.match]
            wanted |= {f"{item.key}={value}" for item in terms for value in item.values}
            assert all(f"--node-labels {label} " in text for label in wanted)
            assert all(f"`{toleration.key}`" in text for toleration in kind.tolerations)
