"""Where tasks run: every Kubernetes word of the project, with the values of placement.yaml.

KFP fixes node pools when it compiles, so a placement is a profile, not a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kfp import dsl, kubernetes

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.placement_file import Common, StageClass, StageClasses, read_placement

TRAINING_STAGES = frozenset({"reward-recycling", "sr-training"})
INFERENCE_STAGES = frozenset({"evaluation", "evaluation-shard", "promotion-gate", "derain-shard"})
GPU_STAGES = TRAINING_STAGES | INFERENCE_STAGES
USER = 10001  # the image's; namespaces with the restricted pod security standard want to see it in the pod
CACHE = "/var/cache/rgsud"  # as the image says
LOCAL = "local"  # this machine: no Kubernetes, and no retries, which kfp.local would honour


@dataclass(frozen=True)
class Profile:
    """A placement by its name: what all tasks share, and what each kind of stage gets."""

    name: str
    common: Common
    classes: StageClasses


def profiles(file: Path | None = None) -> tuple[str, ...]:
    """Names of the profiles in `file` (default: see `read_placement`). Raises ConfigError: a mistake in it."""
    return tuple(read_placement(file).profiles)


def profile(name: str, file: Path | None = None) -> Profile | None:
    """A profile by name, None for `local`. Raises ConfigError: unknown name, a mistake in the file."""
    if name == LOCAL:
        return None
    placement = read_placement(file)
    if name not in placement.profiles:
        raise ConfigError(f"unknown placement {name!r}; choose one of {', '.join(placement.profiles)}")
    return Profile(name, placement.common, placement.profiles[name])


def place(task: dsl.PipelineTask, where: Profile | None) -> dsl.PipelineTask:
    """Resources, nodes, retries, volumes, environment and labels of one task, by the kind of its stage."""
    if where is None:
        return task
    stage = task.component_spec.name  # the task's own name has a number where a component is used twice
    kind = _stage_class(stage, where.classes)
    _resources(task, kind)
    _nodes(task, kind)
    _attempts(task, kind)
    _volumes(task, kind)
    _environment(task, where, kind)
    _pod(task, where, stage)
    return task


def _stage_class(stage: str, classes: StageClasses) -> StageClass:
    if stage in TRAINING_STAGES:
        return classes.training
    return classes.inference if stage in INFERENCE_STAGES else classes.light


def _resources(task: dsl.PipelineTask, kind: StageClass) -> None:
    task.set_cpu_request(kind.cpu.request).set_cpu_limit(kind.cpu.limit)
    task.set_memory_request(kind.memory.request).set_memory_limit(kind.memory.limit)
    if kind.accelerator:
        task.set_accelerator_type(kind.accelerator.type).set_accelerator_limit(kind.accelerator.count)


def _nodes(task: dsl.PipelineTask, kind: StageClass) -> None:
    for key, value in kind.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for term in kind.node_affinity:
        kubernetes.add_node_affinity(task, [item.model_dump(mode="json") for item in term.match], weight=term.weight)
    for toleration in kind.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())


def _attempts(task: dsl.PipelineTask, kind: StageClass) -> None:
    retries = kind.retries
    task.set_retry(
        retries.count,
        backoff_duration=f"{retries.wait_seconds}s",
        backoff_factor=retries.factor,
        backoff_max_duration=f"{retries.longest_wait_seconds}s",
    )
    kubernetes.set_timeout(task, round(3600 * kind.timeout_hours))


def _volumes(task: dsl.PipelineTask, kind: StageClass) -> None:
    # PyTorch's loader workers pass tensors through /dev/shm, 64 MB by default.
    shared = kind.shared_memory
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=shared)
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path=CACHE, size_limit=kind.scratch)


def _environment(task: dsl.PipelineTask, where: Profile, kind: StageClass) -> None:
    task.set_env_variable("RGSUD_IMAGE", task.container_spec.image)  # the nodes of a TrainJob take the same
    task.set_env_variable("RGSUD_POOL", where.name)  # what a price table may go by
    if kind.accelerator:
        task.set_env_variable("RGSUD_GPUS", str(kind.accelerator.count))  # `rgsud doctor` misses what is not there
    kubernetes.use_field_path_as_env(task, env_name="KFP_RUN_ID", field_path="metadata.labels['pipeline/runid']")
    for use, objects in (
        (kubernetes.use_config_map_as_env, where.common.environment.config_maps),
        (kubernetes.use_secret_as_env, where.common.environment.secrets),
    ):
        for name, keys in objects.items():
            for names, optional in ((keys.required, False), (keys.optional, True)):
                if names:
                    use(task, name, {key: key for key in names}, optional)


def _pod(task: dsl.PipelineTask, where: Profile, stage: str) -> None:
    common = where.common
    labels = {**common.labels, "app.kubernetes.io/component": stage, "rgsud-placement": where.name}
    for key, value in labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in common.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    kubernetes.set_image_pull_policy(task, common.image_pull_policy)
    if common.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(common.image_pull_secrets))
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
