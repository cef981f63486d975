"""What a stage's process owes its launcher: an end when the launcher ends, and its error in words.

`rgsud run` starts stages through kfp.local, which merges their output, drops their exit codes and
leaves them running when it is killed; the environment below gives all that back. Unset (Kubeflow), it does nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rgsud_lib.errors import Preempted, RgsudError, TrainingError
from rgsud_lib.files import link_tree, write_json
from rgsud_lib.storage.s3 import is_remote

LAUNCHER = "RGSUD_LAUNCHER_PID"  # the stage gets SIGTERM when this process ends
FAILURE = "RGSUD_FAILURE_FILE"  # where the stage leaves its exit code and message
STDERR = "RGSUD_STDERR_FD"  # inherited descriptor of the launcher's terminal or log
STOPPING = "RGSUD_STOPPING"  # set: the launcher was asked to stop, no further stage may begin
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


class StageFailure(RgsudError):
    """A stage's process ended with this exit code and message."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def task(stage: str, always: bool = False) -> Iterator[None]:
    """Run a stage in a process of its own; an error with a message ends the process without a traceback.

    `always`: even where the launcher was asked to stop.
    """
    _attach()
    try:
        if os.environ.get(STOPPING) and not always:
            raise Preempted(f"stopped before {stage}; the same command goes on from here")
        yield
    except BaseException as error:
        known = explain(error)
        if os.environ.get(FAILURE) and not Path(os.environ[FAILURE]).exists():  # the first failure is the reason
            code, message = known or (1, f"{type(error).__name__}: {error}")
            write_json(Path(os.environ[FAILURE]), {"stage": stage, "exit_code": code, "message": message})
        if known is None:
            raise
        raise SystemExit(known[0] if os.environ.get(FAILURE) else f"{stage}: {known[1]}") from None


def explain(error: BaseException) -> tuple[int, str] | None:
    """Exit code and message of an error that a user can do something about, None for any other (a bug)."""
    if isinstance(error, Preempted):
        return 143, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted; the same command resumes"
    if isinstance(error, StageFailure):
        return error.exit_code, str(error)
    if isinstance(error, RgsudError):
        return (1 if isinstance(error, TrainingError) else 2), str(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return 1, f"the disk is full ({error.filename or error}); free some space, the same command resumes"
    if isinstance(error, PermissionError):
        return 1, f"no permission for {error.filename}; give one or choose another --workdir"
    return None


def log_to_stderr() -> None:
    """Show the project's progress lines and warnings, and nobody else's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("rgsud")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def publish(place: Path | str, artifact: Any) -> None:
    """Hand a stage's bundle to KFP: `artifact` (a dsl.Artifact) becomes a copy, its metadata says which.

    Of a bundle in S3 the artifact holds `bundle.json` only: nothing large is stored twice.
    """
    from rgsud_lib.bundle import write_marker
    from rgsud_lib.storage.remote import (
        open_anywhere,  # pydantic behind it takes longer to import than `rgsud --help` may
    )

    bundle = open_anywhere(place)
    if is_remote(place):
        Path(artifact.path).mkdir(parents=True, exist_ok=True)
        write_marker(Path(artifact.path), bundle)
    else:
        place = str(Path(place).resolve())
        link_tree(Path(place), Path(artifact.path))
    artifact.metadata.update(kind=bundle.kind, digest=bundle.digest, folder=place)
    artifact.metadata["inputs"] = json.dumps(bundle.inputs, sort_keys=True)


def fetch(artifact: Any) -> Path | str:
    """What the stages take for an input artifact: its folder, or the `s3://` address that it points at."""
    place = artifact.metadata.get("folder", "")
    return place if is_remote(place) else Path(artifact.path)


@contextmanager
def exclusive(path: Path, patience: float = 30.0) -> Iterator[None]:
    """Hold the lock file `path`, waiting up to `patience` seconds for a process that is just ending.

    Raises RgsudError: another process keeps it. The lock goes with its process, however that ends.
    """
    deadline = time.monotonic() + patience
    with open(path, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RgsudError(
                        f"another process has been working in {path.parent} for {patience:.0f} s; "
                        "wait until it is done, or choose another --workdir"
                    ) from None
                time.sleep(0.1)
        yield


def _attach() -> None:
    if os.environ.get(STDERR):
        os.dup2(int(os.environ[STDERR]), 2)
    log_to_stderr()
    if os.environ.get(LAUNCHER):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher turns Ctrl-C into SIGTERM
        threading.Thread(target=_end_with, args=(int(os.environ[LAUNCHER]),), daemon=True).start()


def _end_with(launcher: int) -> None:
    """SIGTERM for this process, on which training saves, as soon as `launcher` is gone."""
    with suppress(ProcessLookupError):  # gone already
        select.select([os.pidfd_open(launcher)], [], [])
    os.kill(os.getpid(), signal.SIGTERM)
