"""The pipeline on this machine: kfp.local, made to pass on progress, errors, exit codes and signals.

kfp.local starts each stage as a subprocess of a shell, prints what it prints, and knows only success or
failure. `rgsud_lib.task` is the other end of what is arranged here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psutil
from kfp import local
from kfp.dsl.graph_component import GraphComponent

from rgsud_lib.config import Config
from rgsud_lib.errors import Preempted
from rgsud_lib.storage.listing import canonical
from rgsud_lib.storage.remote import local_root
from rgsud_lib.task import FAILURE, LAUNCHER, STDERR, STOPPING, StageFailure, exclusive
from rgsud_pipelines.placement import LOCAL
from rgsud_pipelines.training import training_pipeline

Pipeline = Callable[[str], GraphComponent]  # the DAG for a placement


def run_pipeline(
    config: Config,
    rainy: str,
    clean: str,
    paired: str | None,
    workdir: Path | str,
    pipeline: Pipeline = training_pipeline,
) -> dict[str, str]:
    """Run (or resume) all stages under `workdir`, a folder or an `s3://` address.

    Returns where the bundles of those that ran lie by artifact, such as evaluation and exported.

    Raises StageFailure with the failed stage's message and exit code, Preempted after SIGTERM.
    """
    root = local_root(workdir) / "kfp"
    root.mkdir(parents=True, exist_ok=True)
    failure, log = root / "failure.json", root / "kfp.log"
    with exclusive(root / ".lock"), open(log, "a") as file:
        failure.unlink(missing_ok=True)
        arguments = {"config": config.model_dump_json(), "rainy": rainy, "clean": clean, "paired": paired or ""}
        with _environment(failure), _stop_children() as received, contextlib.redirect_stdout(file):
            local.init(local.SubprocessRunner(use_venv=False), str(root), workspace_root=str(root / "workspace"))
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", module=r"kfp\.")  # the image means nothing on this machine
                    dag = pipeline(LOCAL)
                    dag(**arguments, workdir=canonical(workdir))
            except RuntimeError as error:
                raise _reason(failure, received, log) from error
        return _folders(root, dag.pipeline_spec.pipeline_info.name)


def _folders(root: Path, pipeline: str) -> dict[str, str]:
    """Where the bundles lie, by artifact name, as the tasks of the last run reported it.

    KFP hands nothing out of an exit handler, so this reads what its tasks wrote.
    """
    last = max(root.glob(f"{pipeline}-*"))  # their names end with the time
    folders = {}
    for file in last.rglob("executor_output.json"):
        for name, found in json.loads(file.read_text()).get("artifacts", {}).items():
            folder = found["artifacts"][0].get("metadata", {}).get("folder")
            if folder:
                folders[name] = folder
    return folders


@contextlib.contextmanager
def _environment(failure: Path) -> Iterator[None]:
    """What the stages inherit. Descriptor 0 is the one that kfp.local does not replace: it carries our stderr."""
    before = dict(os.environ)
    stdin = os.dup(0)
    sys.stderr.flush()
    os.dup2(2, 0)
    os.environ |= {FAILURE: str(failure), LAUNCHER: str(os.getpid()), STDERR: "0"}
    try:
        yield
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        for name in (FAILURE, LAUNCHER, STDERR, STOPPING):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


@contextlib.contextmanager
def _stop_children() -> Iterator[list[int]]:
    """Pass SIGTERM and Ctrl-C on, so that the stage saves; the second time it is killed. Yields what arrived."""
    received: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        os.environ[STOPPING] = "1"
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reason(failure: Path, received: list[int], log: Path) -> Exception:
    """Why kfp.local says that a task failed."""
    known = json.loads(failure.read_text()) if failure.exists() else None
    if received:
        message = known["message"] if known else "stopped; the same command resumes"
        return StageFailure(message, 130) if received[0] == signal.SIGINT else Preempted(message)
    if known:
        return StageFailure(f"{known['stage']}: {known['message']}", known["exit_code"])
    tail = "\n".join(log.read_text(errors="replace").rstrip().splitlines()[-15:])
    return StageFailure(f"a stage's process ended without a word (killed?); the end of {log}:\n{tail}", 1)
