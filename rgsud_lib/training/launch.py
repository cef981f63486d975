"""A training stage in several processes: torch's elastic launcher on this machine, a TrainJob on several.

All of them run `python -m rgsud_lib.training.worker`. The first process does the stage as if it were alone
(folder, tracking run, bundle), so there is nothing left to do for the one that launched it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib.config import Config
from rgsud_lib.distributed import launched
from rgsud_lib.errors import ConfigError, Preempted
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.task import LAUNCHER, STDERR, StageFailure
from rgsud_lib.training.runtime import choose_device

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

JOB = "RGSUD_TRAINING_JOB"  # what the workers are to do, as JSON
WORKER = ("-m", "rgsud_lib.training.worker")
log = logging.getLogger("rgsud")


def launch(stage: str, config: Config, bundles: Mapping[str, Path | str], workdir: Path | str, key: str) -> bool:
    """Do a stage in several processes; False at once where this process is enough, or is one of them.

    `bundles` are the stage's inputs by kind, `key` names its folder. Raises ConfigError: not so many devices, or
    a batch that they cannot divide; Preempted after SIGTERM, StageFailure with the message of what failed first.
    """
    if launched():
        return False
    training = config.training
    job = {
        "stage": stage, "config": config.model_dump(mode="json"), "workdir": _address(workdir),
        "bundles": {kind: _address(place) for kind, place in bundles.items()},
    }  # fmt: skip
    if training.nodes > 1:
        from rgsud_lib.training.trainjob import run_trainjob

        run_trainjob(job, key, training)
        return True
    processes = count_processes(config, stage)
    if processes == 1:
        return False
    log.info("%s: %d processes share each batch", stage, processes)
    with tempfile.TemporaryDirectory(prefix="rgsud-") as folder:
        _run_elastic(job | {"failures": folder}, processes, Path(folder))
    return True


def count_processes(config: Config, stage: str) -> int:
    """How many processes train on this machine: as configured, or all visible GPUs that divide the batches.

    Raises ConfigError where the configured number is more than there are GPUs, or does not divide a batch.
    """
    import torch

    training, warm = config.training, config.warm_start
    batches = {"training.batch": training.batch}
    if stage == "recycle" and warm.enabled:
        batches["warm_start.batch"] = warm.batch
    cuda = choose_device(training) == "cuda"
    visible = torch.cuda.device_count() if cuda else 1
    if training.devices == "auto":
        return max(count for count in range(1, visible + 1) if all(batch % count == 0 for batch in batches.values()))
    if cuda and training.devices > visible:
        raise ConfigError(f"training.devices={training.devices}, but torch sees {visible} GPUs; use auto")
    for name, batch in batches.items():
        if batch % training.devices:
            raise ConfigError(
                f"{name}={batch} cannot be divided among training.devices={training.devices}; change one of them"
            )
    return training.devices


def _address(place: Path | str) -> str:
    return str(place) if is_remote(place) else str(Path(place).absolute())


def _run_elastic(job: dict[str, object], processes: int, folder: Path) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, max_restarts=0, run_id=uuid.uuid4().hex,
        rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)), signals_to_handle="SIGTERM",
    )  # fmt: skip
    try:
        with _workers_environment(job), _own_sigterm():
            elastic_launch(settings, sys.executable)(*WORKER)
    except SignalException:
        raise Preempted(f"SIGTERM in {job['stage']}: the state is saved; the same command resumes") from None
    except ChildFailedError as error:
        raise _reason(folder, error) from error


@contextmanager
def _workers_environment(job: dict[str, object]) -> Iterator[None]:
    """The launcher hands this process's environment on: with the job, and with us as the process they end with."""
    before = dict(os.environ)
    os.environ |= {JOB: json.dumps(job), LAUNCHER: str(os.getpid())}
    os.environ.pop(STDERR, None)  # our stderr is what it says already
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """The launcher installs a handler of its own; put back what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reason(folder: Path, error: ChildFailedError) -> Exception:
    """What failed first: a process that could not say why, else the earliest failure that is no consequence."""
    reports = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    silent = [rank for rank in error.failures if not (folder / f"failure-{rank}.json").exists()]
    if silent:
        code = error.failures[silent[0]].exitcode
        why = f"was killed by signal {-code} (9: out of memory?)" if code < 0 else f"ended with exit code {code}"
        return StageFailure(f"process {silent[0]} {why}; the same command resumes", 1)
    failures = [json.loads(path.read_text()) for path in reports]
    first = min(failures, key=lambda failure: failure["exit_code"] == 143)
    if first["exit_code"] == 143:
        return Preempted(first["message"])
    return StageFailure(first["message"], first["exit_code"])
