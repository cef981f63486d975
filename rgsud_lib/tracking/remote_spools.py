"""Spools of a workdir in S3: a pod's disk goes with it, so what MLflow has not got is kept beside the results.

One object a spool, `WORKDIR/mlflow-spool/<name>.tar`. Who wants to send it fetches it first, and says so in a claim.
"""

from __future__ import annotations

import logging
import shutil
import socket
import tarfile
import tempfile
import time
from pathlib import Path

from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import list_objects
from rgsud_lib.storage.remote import local_root
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.tracking.spool import FOLDER

STALE = 3600.0  # seconds after which a claim is that of a machine that is gone
logger = logging.getLogger("rgsud")


def send_away(folder: Path, workdir: Path | str) -> str:
    """Move a spool that nobody holds to S3; returns its address. Raises DataError: refused or unreachable."""
    address = f"{_prefix(workdir)}/{folder.name}.tar"
    with tempfile.NamedTemporaryFile(dir=folder.parent, prefix=".", suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(folder, folder.name)
        file.flush()
        transfer.upload(Path(file.name), address)
    shutil.rmtree(folder)
    return address


def fetch(workdir: Path | str) -> None:
    """Move the spools in S3 that nobody else is sending to this machine; nothing for a local workdir.

    Raises DataError: refused or unreachable.
    """
    if not is_remote(workdir):
        return
    found = {file.name: file for file in list_objects(_prefix(workdir))}
    for name, file in sorted(found.items()):
        if name.endswith(".tar") and _claimed(file.address, found.get(f"{name}.claim")):
            _receive(file.address, local_root(workdir) / FOLDER)


def _claimed(address: str, held: object) -> bool:
    claim = f"{address}.claim"
    if held is not None and time.time() - held.modified > STALE:
        transfer.delete([claim])
    return transfer.create(claim, socket.gethostname().encode())


def _receive(address: str, root: Path) -> None:
    """Fetch one; after a crash in between it is here and there, and sending it twice changes nothing."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".") as folder:
        file = Path(folder) / "spool.tar"
        transfer.download(address, file)
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = [path for path in Path(folder).iterdir() if path.is_dir()]
        shutil.rmtree(root / unpacked.name, ignore_errors=True)
        unpacked.rename(root / unpacked.name)
    transfer.delete([address, f"{address}.claim"])


def _prefix(workdir: Path | str) -> str:
    return f"{str(workdir).rstrip('/')}/{FOLDER}"
