"""Several machines: what is asked of Kubeflow's Trainer, how the stage waits, and the SDK's local backend for real."""

from __future__ import annotations

import inspect
import json
import logging
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from rgsud_lib import stages
from rgsud_lib.config import TrainingConfig, digest_of, parse_config
from rgsud_lib.errors import ConfigError, Preempted, TrainingError
from rgsud_lib.files import CHECKPOINT
from rgsud_lib.storage.remote import pulled
from rgsud_lib.training import trainjob
from rgsud_lib.training.curves import read_log
from rgsud_lib.training.launch import JOB

NAME = f"rgsud-recycle-0123-{digest_of('s3://bucket/work')[:6]}"
WORK = {"stage": "recycle", "config": {}, "workdir": "s3://bucket/work", "bundles": {"dataset": "s3://bucket/data"}}
TRAINING = TrainingConfig(nodes=2, devices=4)


class Cluster:
    """Stands for a TrainerClient: a job goes through `statuses`, one at each question; an exception is raised."""

    def __init__(self, *statuses, jobs=()):
        self.statuses, self.jobs = list(statuses), dict(jobs)
        self.asked, self.deleted = [], []

    def list_jobs(self):
        return [SimpleNamespace(name=name, status=status) for name, status in self.jobs.items()]

    def train(self, runtime, trainer, options):
        spec: dict = {}
        for option in options:
            option(spec, trainer, None)
        self.asked.append((runtime, trainer, spec["metadata"]["name"]))

    def get_job(self, name):
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status
        return SimpleNamespace(status=status)

    def get_job_logs(self, name):
        return iter(["step 1", "the disk is full"])

    def delete_job(self, name):
        self.deleted.append(name)
        self.jobs.pop(name, None)


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(trainjob, "POLL", 0.01)
    monkeypatch.delenv(trainjob.BACKEND, raising=False)

    def made(*statuses, **named):
        stand_in = Cluster(*statuses, **named)
        monkeypatch.setattr(trainjob, "_client", lambda local: stand_in)
        return stand_in

    return made


def test_a_job_gets_nodes_devices_and_environment_but_no_secret(cluster, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:very-secret@mlflow")
    monkeypatch.setenv("KFP_RUN_ID", "run-7")
    asked = cluster("Created", "Running", "Complete")
    trainjob.run_trainjob(WORK, "recycle-0123", TRAINING)
    ((runtime, trainer, name),) = asked.asked
    assert (runtime, name, trainer.num_nodes, trainer.resources_per_node) == (
        "rgsud",
        NAME,
        2,
        {"gpu": 4},
    )
    assert json.loads(trainer.env[JOB]) == WORK and trainer.env["KFP_RUN_ID"] == "run-7"
    assert trainer.env[trainjob.COMMAND] == "python -m rgsud_lib.training.worker"
    assert "very-secret" not in str(trainer.env)
    assert asked.deleted == [NAME]


def test_the_sdk_makes_a_trainjob_of_it(cluster, monkeypatch):
    from kubeflow.trainer.backends.kubernetes.utils import get_trainer_cr_from_custom_trainer
    from kubeflow.trainer.constants import constants

    asked = cluster("Complete")
    trainjob.run_trainjob(WORK, "recycle-0123", TRAINING)
    runtime = trainjob._runtime(local=True)
    runtime.trainer.set_command(constants.TORCH_COMMAND)
    resource = get_trainer_cr_from_custom_trainer(runtime, asked.asked[0][1])
    document = resource.to_dict()
    assert document["numNodes"] == 2 and document["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": 4}
    script = document["command"][-1]
    assert "torchrun" in script and "os.execvp(command[0], command)" in script
    assert not set("$`\\") & set(inspect.getsource(trainjob.enter))  # a here-document would replace them


def test_the_log_is_passed_on_and_a_failure_quotes_its_end(cluster, caplog):
    failing = cluster("Running", RuntimeError("no answer"), "Failed")
    with caplog.at_level(logging.INFO, "rgsud"), pytest.raises(TrainingError, match="(?s)failed.*the disk is full"):
        trainjob.run_trainjob(WORK, "recycle-0123", TRAINING)
    assert caplog.messages.count("step 1") == 1
    assert failing.deleted == [NAME]


def test_a_cluster_that_never_answers_is_given_up(cluster, monkeypatch):
    monkeypatch.setattr(trainjob, "PATIENCE", 3)
    silent = cluster(RuntimeError("no answer"))
    with pytest.raises(TrainingError, match="cannot be followed: no answer"):
        trainjob.run_trainjob(WORK, "recycle-0123", TRAINING)
    assert silent.deleted


def test_sigterm_deletes_the_job(cluster):
    running = cluster("Running")
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(
        Preempted, match="TrainJob rgsud-recycle-0123-[0-9a-f]{6} was deleted; the same command resumes"
    ):
        trainjob.run_trainjob(WORK, "recycle-0123", TRAINING)
    assert running.deleted == [NAME]


@pytest.mark.parametrize(("left", "created"), [("Running", 0), ("Failed", 1)])
def test_a_job_whose_launcher_was_lost_is_joined_or_replaced(left, created, cluster):
    asked = cluster("Complete", jobs={NAME: left})
    trainjob.run_trainjob(WORK, "recycle-0123", TRAINING)
    assert len(asked.asked) == created and len(asked.deleted) == 1 + created


def test_nodes_need_a_workdir_that_all_of_them_reach(cluster):
    cluster("Complete")
    with pytest.raises(ConfigError, match="training.nodes=2 with --workdir /tmp/work: the nodes share no disk"):
        trainjob.run_trainjob(WORK | {"workdir": "/tmp/work"}, "recycle-0123", TRAINING)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves a pipe open
def test_the_sdks_local_backend_runs_stops_and_resumes_a_stage_in_s3(tiny, dataset, s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv(trainjob.BACKEND, "local")
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    tree = tiny.model_dump()
    config = parse_config(tree | {"training": tree["training"] | {"nodes": 2}})

    def terminate() -> None:
        while not list(tmp_path.glob(f"cache/work/*/stages/*/{CHECKPOINT}/latest.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(Preempted, match="TrainJob rgsud-recycle-.* was deleted"):
        stages.recycle(config, dataset, s3_bucket)
    thread.join()
    address = stages.recycle(config, dataset, s3_bucket)
    assert address.startswith(f"{s3_bucket}/stages/recycle-")
    assert len(read_log(pulled(address) / "log.jsonl")) == 7
    odd = parse_config(tree | {"training": tree["training"] | {"nodes": 2, "batch": 3}})
    with pytest.raises(TrainingError, match="(?s)TrainJob.*a batch of 3 cannot be divided among 2 processes"):
        stages.recycle(odd, dataset, s3_bucket)
