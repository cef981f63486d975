"""Checkpoints of an unfinished stage in S3, so that another machine can go on where this one was preempted.

A snapshot is the stage's folder as it is: objects named by their SHA-256, of which only new ones are sent, and
then one PUT of a pointer that names them. So whoever restores finds the old snapshot or the new one, whole.
A stage may be under way on two machines (submitted twice, or a pod that outlived its node): each writes and removes
objects below a prefix of its own, so neither can take from the other's snapshot. Who finishes removes all.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rgsud_lib.bundle import payload
from rgsud_lib.errors import BundleError, DataError
from rgsud_lib.files import CHECKPOINT, sha256_file, write_json
from rgsud_lib.storage import transfer
from rgsud_lib.storage.s3 import ObjectGone
from rgsud_lib.storage.shards import check_name

HOME = ".home.json"  # in a stage's folder whose home is in S3: the address, this writer's prefix, what it has there
POINTER = f"{CHECKPOINT}/snapshot.json"
STATE = f"{CHECKPOINT}/latest.json"  # training's own pointer to its last state
logger = logging.getLogger("rgsud")


@dataclass(frozen=True)
class Snapshot:
    """What the pointer says: below whose prefix the objects are, after how many updates, and each file's SHA-256."""

    writer: str
    updates: int
    files: dict[str, str]


def restore(address: str, folder: Path) -> None:
    """Make `folder` what the last snapshot at `address` was; from now on `share` sends there.

    A folder whose own checkpoint is as late is left as it is, and so, with a warning, is one whose snapshot has lost
    objects. Raises BundleError: the pointer cannot be read, or an object was altered.
    """
    home = _home(address, folder)
    beside = folder.with_name(f".{folder.name}.partial")
    snapshot = _pointed_at(address)
    while snapshot and snapshot.updates > _updates(folder):
        try:
            _fetch(address, snapshot, beside)
        except ObjectGone as error:
            tried, snapshot = snapshot, _pointed_at(address)
            if snapshot == tried:  # else its writer has replaced it meanwhile
                logger.warning("%s: the checkpoint in S3 is not whole and is not used: %s", folder.name, error)
                break
            continue
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        home["stamps"] = {}
        logger.info("%s: going on from the checkpoint in %s", folder.name, address)
        break
    shutil.rmtree(beside, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / HOME, home)


def share(folder: Path) -> None:
    """Send a snapshot where the folder's home is in S3; does nothing for any other folder.

    A server that stays away is a warning, not the end of a training: the next snapshot holds all of this one.
    """
    if not (folder / HOME).is_file():
        return
    try:
        _share(folder)
    except DataError as error:
        logger.warning("the checkpoint could not be sent, training goes on: %s", error)


def forget(address: str) -> None:
    """Remove the snapshot of a stage that is finished, its pointer first."""
    transfer.delete([f"{address}/{POINTER}"])
    transfer.delete_below(f"{address}/{CHECKPOINT}")


def _share(folder: Path) -> None:
    home = json.loads((folder / HOME).read_text())
    address, stamps, sent = home["address"], home["stamps"], set(home["sent"])
    own = f"{address}/{CHECKPOINT}/{home['writer']}"
    names = [*payload(folder), *(f"{CHECKPOINT}/{name}" for name in payload(folder / CHECKPOINT))]
    stamps = {name: _stamp(folder / name, stamps.get(name)) for name in names}
    files = {name: sha256 for name, (*_, sha256) in stamps.items()}
    fresh = {sha256: name for name, sha256 in files.items() if sha256 not in sent}
    with ThreadPoolExecutor(transfer.THREADS) as pool:
        for _ in pool.map(lambda item: transfer.upload(folder / item[1], f"{own}/{item[0]}", item[0]), fresh.items()):
            pass
    snapshot = Snapshot(home["writer"], _updates(folder), files)
    transfer.write(f"{address}/{POINTER}", json.dumps(vars(snapshot), sort_keys=True).encode())
    # Before anything is removed: what is on record as sent must be there, also if this process is killed now.
    write_json(folder / HOME, home | {"sent": sorted(set(files.values())), "stamps": stamps})
    transfer.delete(f"{own}/{sha256}" for sha256 in sent - set(files.values()))


def _home(address: str, folder: Path) -> dict[str, Any]:
    """What the folder knows of its home; a folder that is new there becomes a new writer."""
    if (folder / HOME).is_file():
        home = json.loads((folder / HOME).read_text())
        if home["address"] == address:
            return home
    return {"address": address, "writer": uuid.uuid4().hex, "sent": [], "stamps": {}}


def _updates(folder: Path) -> int:
    """How many updates a folder's checkpoint has behind it; -1 where there is no checkpoint."""
    if not (folder / STATE).is_file():
        return -1
    return json.loads((folder / STATE).read_text())["updates"]


def _stamp(path: Path, before: list | None) -> list:
    """Size, time and SHA-256 of a file, which is read only if the first two have changed."""
    status = path.stat()
    if before and before[:2] == [status.st_size, status.st_mtime_ns]:
        return before
    return [status.st_size, status.st_mtime_ns, sha256_file(path)]


def _pointed_at(address: str) -> Snapshot | None:
    """The last snapshot, None where there is none."""
    document = transfer.read(f"{address}/{POINTER}")
    if document is None:
        return None
    try:
        snapshot = Snapshot(**json.loads(document))
        for name in (snapshot.writer, *snapshot.files.keys()):
            check_name(name)
        return snapshot if snapshot.updates >= 0 else None
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{address}/{POINTER} cannot be read ({error!r}); delete {address}/{CHECKPOINT}/ to begin the stage again"
        ) from None


def _fetch(address: str, snapshot: Snapshot, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for parent in {(folder / name).parent for name in snapshot.files}:
        parent.mkdir(parents=True, exist_ok=True)

    def fetch(item: tuple[str, str]) -> None:
        name, sha256 = item
        transfer.download(f"{address}/{CHECKPOINT}/{snapshot.writer}/{sha256}", folder / name, sha256)

    with ThreadPoolExecutor(transfer.THREADS) as pool:
        for _ in pool.map(fetch, snapshot.files.items()):
            pass
