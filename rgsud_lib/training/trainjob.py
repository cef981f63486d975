"""A training stage on several machines, by a Kubeflow TrainJob: this process only waits and passes the log on.

The nodes need what this one has but for secrets, which come with the training runtime. RGSUD_TRAINER=local has the
SDK's local backend run the same on this machine.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from rgsud_lib.config import TrainingConfig, digest_of
from rgsud_lib.errors import ConfigError, Preempted, TrainingError
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.task import LAUNCHER
from rgsud_lib.training.launch import JOB, WORKER
from rgsud_lib.training.runtime import StopRequest, stop_on_sigterm

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

RUNTIME = "RGSUD_TRAINING_RUNTIME"  # name of the cluster's TrainingRuntime
BACKEND = "RGSUD_TRAINER"
COMMAND = "RGSUD_COMMAND"
PASSED_ON = (
    "RGSUD_RUN_KEY", "RGSUD_TRACKING", "RGSUD_POOL", "KFP_RUN_ID",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION", "RGSUD_S3_ADDRESSING",
    "MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID",
)  # fmt: skip
UNFINISHED = ("Created", "Running")
POLL = 10.0  # seconds; each time the first node's whole log comes along
PATIENCE = 30  # failing questions in a row, after which the cluster is given up
log = logging.getLogger("rgsud")


def run_trainjob(job: dict[str, Any], key: str, training: TrainingConfig) -> None:
    """Run the workers of `job` on `training.nodes` nodes; a TrainJob of this stage that is under way is joined.

    Raises Preempted after SIGTERM (the TrainJob is deleted, its nodes save), TrainingError where it fails.
    """
    local = os.environ.get(BACKEND) == "local"
    if not local and not is_remote(job["workdir"]):
        raise ConfigError(
            f"training.nodes={training.nodes} with --workdir {job['workdir']}: the nodes share no disk; "
            "use a workdir in s3://"
        )
    client, name = _client(local), f"rgsud-{key}-{digest_of(str(job['workdir']))[:6]}"
    with stop_on_sigterm() as stop:
        ours = _start(client, name, job, training, local)
        status, lines = UNFINISHED[0], []
        try:
            status, lines = _follow(client, name, stop)
        finally:
            if ours or status not in UNFINISHED:  # a job that was joined is its creator's to stop
                client.delete_job(name)
            if local:
                _stop_children()
    if stop:
        end = "was deleted" if ours else "goes on, as another process started it"
        raise Preempted(f"SIGTERM in {job['stage']}: TrainJob {name} {end}; the same command resumes")
    if status != "Complete":
        tail = "\n".join(lines[-15:])
        raise TrainingError(f"TrainJob {name} failed; the same command resumes. The end of its log:\n{tail}")


def enter() -> None:
    # The SDK copies this function's source into the job, where nothing else of this file is known.
    import os
    import shlex

    command = shlex.split(os.environ["RGSUD_COMMAND"])
    os.execvp(command[0], command)


def _client(local: bool) -> TrainerClient:
    from kubeflow.trainer import KubernetesBackendConfig, LocalProcessBackendConfig, TrainerClient

    return TrainerClient(LocalProcessBackendConfig() if local else KubernetesBackendConfig())


def _start(client: TrainerClient, name: str, job: dict[str, Any], training: TrainingConfig, local: bool) -> bool:
    """Create the TrainJob, unless one of that name is under way; whether it was created."""
    try:
        if {found.name: found.status for found in client.list_jobs()}.get(name) in UNFINISHED:
            return False
        _create(client, name, job, training, local)
    except (RuntimeError, TimeoutError) as error:  # the SDK's, for whatever the API server answers
        raise TrainingError(
            f"TrainJob {name} cannot be created: {error}; are the Kubeflow Trainer and manifests/training installed?"
        ) from error
    log.info("%s: TrainJob %s on %d nodes", job["stage"], name, training.nodes)
    return True


def _create(client: TrainerClient, name: str, job: dict[str, Any], training: TrainingConfig, local: bool) -> None:
    from kubeflow.trainer import CustomTrainer
    from kubeflow.trainer.options import Name

    environment = {variable: os.environ[variable] for variable in PASSED_ON if variable in os.environ}
    environment = {variable: value for variable, value in environment.items() if "@" not in value}  # user:password@host
    environment |= {JOB: json.dumps(job), COMMAND: " ".join(("python", *WORKER))}
    devices = 1 if training.devices == "auto" else training.devices
    if local:
        processes = ("--standalone", f"--nproc-per-node={training.nodes * devices}")
        command = (sys.executable, "-m", "torch.distributed.run", *processes, *WORKER)
        environment = dict(os.environ) | environment | {COMMAND: " ".join(command), LAUNCHER: str(os.getpid())}
    gpus = {"gpu": devices} if training.device != "cpu" and training.devices != "auto" else None
    trainer = CustomTrainer(
        enter, image=os.environ.get("RGSUD_IMAGE"), num_nodes=training.nodes, resources_per_node=gpus, env=environment
    )
    _remove_finished(client, name)
    client.train(runtime=_runtime(local), trainer=trainer, options=[Name(name)])


def _runtime(local: bool) -> Any:
    """A runtime's name, or one for the local backend that starts our own Python: its usual one installs another."""
    from kubeflow.trainer import Runtime, RuntimeTrainer, TrainerType
    from kubeflow.trainer.types.types import RuntimeKind

    if not local:
        return os.environ.get(RUNTIME) or "rgsud"
    plain = RuntimeTrainer(TrainerType.CUSTOM_TRAINER, framework="plain", image="local")
    return Runtime("torch-distributed", plain, RuntimeKind.TRAINING_RUNTIME)


def _follow(client: TrainerClient, name: str, stop: StopRequest) -> tuple[str, list[str]]:
    """Pass on the first node's log until the job ends; its status and log."""
    status, lines, failures = UNFINISHED[0], [], 0
    while status in UNFINISHED and not stop:
        time.sleep(POLL)
        try:
            status, shown, lines = client.get_job(name).status, len(lines), list(client.get_job_logs(name))
            failures = 0
        except (RuntimeError, TimeoutError) as error:  # the SDK's, for whatever the API server answers
            failures += 1
            log.warning("TrainJob %s: %s", name, error)
            if failures == PATIENCE:
                raise TrainingError(f"TrainJob {name} cannot be followed: {error}") from error
            continue
        for line in lines[shown:]:
            log.info("%s", line)
    return status, lines


def _remove_finished(client: TrainerClient, name: str) -> None:
    """Make way for a job of that name: one that ended while nobody waited for it."""
    if name in {found.name for found in client.list_jobs()}:
        client.delete_job(name)
        deadline = time.monotonic() + 60
        while name in {found.name for found in client.list_jobs()} and time.monotonic() < deadline:
            time.sleep(POLL)


def _stop_children() -> None:
    """The local backend's delete stops its shell at its next line of output, and nothing below it."""
    import contextlib

    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
