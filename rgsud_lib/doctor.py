"""Can work be done here? GPU, shared memory, disks, S3, MLflow, image and packages, each with what to do about it.

`rgsud doctor` shows all of it; a stage that trains or infers looks at what it cannot do without before it begins,
so that a broken node fails in its first second.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rgsud_lib import __version__
from rgsud_lib.errors import NodeError, RgsudError
from rgsud_lib.storage.remote import cache_folder
from rgsud_lib.storage.s3 import client, explained, is_remote, split
from rgsud_lib.tracking.address import shown

GPUS = "RGSUD_GPUS"  # how many GPUs the placement asked for; unset where nobody did
GIB = 2**30
DISK_NEEDED, DISK_WANTED = 1 * GIB, 5 * GIB
SHARED_NEEDED = 1 * GIB  # what NCCL and loader workers pass between the processes of several GPUs
PATIENCE = 120.0  # seconds for a GPU to answer; a broken one may never do
MLFLOW_PATIENCE = 5.0
GPU_PROBE = """
import json, torch
count = torch.cuda.device_count()
print(json.dumps([[torch.cuda.get_device_name(n), *torch.cuda.mem_get_info(n)] for n in range(count)]))
"""
logger = logging.getLogger("rgsud")


@dataclass(frozen=True)
class Finding:
    """What one check found; unless `ok`, the message says what to do."""

    check: str
    status: Literal["ok", "warn", "fail"]
    message: str


def examine(workdir: Path | str) -> list[Finding]:
    """All checks, for work in `workdir` (a folder or an `s3://` address)."""
    findings = [gpu(_gpus()), *_needs(workdir), server := mlflow_server()]
    if server.status == "ok" and os.environ.get("MLFLOW_TRACKING_URI"):
        findings.append(mlflow_artifacts())
    return [*findings, image(), packages()]


def check_node(stage: str, workdir: Path | str) -> None:
    """Look at what `stage` needs and log it in one line; cheap where no GPU is asked for.

    Raises NodeError: every check that failed.
    """
    findings = [gpu(_gpus())] if _gpus() else []
    findings += [*_needs(workdir), mlflow_server(), image()]
    if failed := [f"{found.check}: {found.message}" for found in findings if found.status == "fail"]:
        raise NodeError("this machine cannot do the work\n" + "\n".join(failed))
    calm = all(found.status == "ok" for found in findings)
    level = (logging.INFO if _gpus() or is_remote(workdir) else logging.DEBUG) if calm else logging.WARNING
    logger.log(level, "%s: %s", stage, "; ".join(f"{found.check} {found.message}" for found in findings))


def _gpus() -> int:
    return int(os.environ.get(GPUS) or 0)


def _needs(workdir: Path | str) -> list[Finding]:
    findings = [shared_memory(_gpus()), disk("cache", cache_folder())]
    return [*findings, bucket(str(workdir)) if is_remote(workdir) else disk("workdir", Path(workdir))]


def gpu(wanted: int) -> Finding:
    """Names and memory of the GPUs; in a process of its own, which takes its memory on the GPU along when it ends."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", GPU_PROBE], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("gpu", "fail", f"does not answer within {PATIENCE:.0f} s; drain this node, look at its driver")
    if probe.returncode:
        reason = probe.stderr.strip().rpartition("\n")[2]
        return Finding("gpu", "fail", f"cannot be used ({reason}); does the node's driver fit this PyTorch?")
    found = json.loads(probe.stdout)
    if len(found) < wanted:
        fix = "does the node have the device plugin and a driver that fits this PyTorch?"
        return Finding("gpu", "fail", f"{len(found)} of the {wanted} asked for by {GPUS} are visible; {fix}")
    if not found:
        return Finding("gpu", "ok", f"none here, and none asked for ({GPUS})")
    each = (f"{name} {free / GIB:.0f} of {total / GIB:.0f} GiB free" for name, free, total in found)
    return Finding("gpu", "ok", ", ".join(each))


def shared_memory(gpus: int, folder: Path = Path("/dev/shm")) -> Finding:
    """Size of /dev/shm, which only processes that share a GPU node need."""
    if not folder.is_dir():
        return Finding("shared memory", "ok", f"no {folder} on this system")
    size = shutil.disk_usage(folder).total
    if gpus > 1 and size < SHARED_NEEDED:
        fix = "mount a larger one (emptyDir with medium Memory; docker: --shm-size)"
        return Finding("shared memory", "fail", f"{folder} has {_size(size)}, {gpus} GPUs need 1 GiB; {fix}")
    return Finding("shared memory", "ok", _size(size))


def disk(name: str, folder: Path) -> Finding:
    """Free space where `folder` is or will be, and whether a file can be written there."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    where = f"{folder} has {_size(free)} free"
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        return Finding(name, "fail", f"{folder} cannot be written ({error.strerror}); mount a volume there")
    if free < DISK_WANTED:
        status = "fail" if free < DISK_NEEDED else "warn"
        return Finding(name, status, f"{where}; free some, or mount a larger volume")
    return Finding(name, "ok", where)


def bucket(address: str) -> Finding:
    """Write, read and delete a tiny object under `address`."""
    name, prefix = split(address)
    key = f"{prefix.rstrip('/')}/.doctor-{uuid.uuid4().hex}".lstrip("/")
    try:
        with explained(address):
            client().put_object(Bucket=name, Key=key, Body=b"rgsud doctor")
            client().get_object(Bucket=name, Key=key)["Body"].read()
            client().delete_object(Bucket=name, Key=key)
    except RgsudError as error:
        return Finding("s3", "fail", str(error))
    return Finding("s3", "ok", f"{address} can be written, read and deleted from")


def mlflow_server() -> Finding:
    """Whether the tracking server answers; training goes on without one, so none of this is a failure."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith("http"):
        return Finding("mlflow", "ok", shown(address) or "runs are kept in a database in the workdir")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{address.rstrip('/')}/health", headers=headers)
    try:
        urllib.request.urlopen(request, timeout=MLFLOW_PATIENCE).close()
    except urllib.error.HTTPError as error:
        fix = "check MLFLOW_TRACKING_URI and the login; records are sent when it takes them"
        return Finding("mlflow", "warn", f"{shown(address)} answers with {error.code}; {fix}")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Finding("mlflow", "warn", f"{shown(address)} does not answer ({reason}); records are sent when it does")
    return Finding("mlflow", "ok", f"{shown(address)} answers")


def mlflow_artifacts() -> Finding:
    """Write and delete a tiny file where the artifacts of new runs go."""
    from rgsud_lib.tracking import mlflow_store

    try:
        place = mlflow_store.try_artifacts()
    except mlflow_store.failures() as error:
        fix = "the client writes there itself: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, MLFLOW_S3_ENDPOINT_URL"
        return Finding("mlflow artifacts", "fail", f"cannot be written ({str(error).splitlines()[0]}); {fix}")
    return Finding("mlflow artifacts", "ok", f"{place} can be written")


def image() -> Finding:
    """Which image and code this is, as its labels and the placement say."""
    name, commit = os.environ.get("RGSUD_IMAGE"), os.environ.get("RGSUD_COMMIT")
    return Finding("image", "ok", f"{name or 'unknown'}, commit {commit or 'unknown'}, rgsud {__version__}")


def packages() -> Finding:
    """Whether what is installed is what this version of rgsud was made for."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    wrong = []
    for wanted in map(Requirement, requires("rgsud") or []):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            try:
                found = version(wanted.name)
            except PackageNotFoundError:
                found = ""
            if not wanted.specifier.contains(found or "0", prereleases=True):
                wrong.append(f"{wanted.name} is {found or 'missing'}, needed is {wanted.specifier}")
    if wrong:
        return Finding("packages", "fail", f"{'; '.join(wrong)}; install requirements.lock again")
    shown = ("torch", "kfp", "mlflow", "boto3", "onnxruntime")
    return Finding("packages", "ok", ", ".join(f"{name} {version(name)}" for name in shown))


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
