"""Where tasks run: every Kubernetes word of the project.

KFP fixes node pools when it compiles, so a placement is a profile, not a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

from kfp import dsl, kubernetes

from rgsud_lib.errors import ConfigError

GPU_STAGES = frozenset({"reward-recycling", "sr-training", "evaluation"})


@dataclass(frozen=True)
class Profile:
    """Requests and limits of a task; `gpus` go to the stages that train or infer."""

    cpu: str
    memory: str
    shared_memory: str
    gpus: int


PROFILES = {
    "gpu": Profile(cpu="8", memory="32Gi", shared_memory="8Gi", gpus=1),
    "cpu": Profile(cpu="2", memory="8Gi", shared_memory="1Gi", gpus=0),
}


def profile(name: str) -> Profile:
    """A profile by name. Raises ConfigError: unknown name."""
    if name not in PROFILES:
        raise ConfigError(f"unknown placement {name!r}; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]


def place(task: dsl.PipelineTask, where: Profile) -> dsl.PipelineTask:
    """Resources, shared memory and the KFP run's id for one task."""
    task.set_cpu_request(where.cpu).set_cpu_limit(where.cpu)
    task.set_memory_request(where.memory).set_memory_limit(where.memory)
    if where.gpus and task.name in GPU_STAGES:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(where.gpus)
    # PyTorch's loader workers pass tensors through /dev/shm, 64 MB by default.
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=where.shared_memory
    )
    kubernetes.use_field_path_as_env(task, env_name="KFP_RUN_ID", field_path="metadata.labels['pipeline/runid']")
    return task
