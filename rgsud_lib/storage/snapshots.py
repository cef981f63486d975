"""Checkpoints of an unfinished stage in S3, so that another machine can go on where this one was preempted.

A snapshot is the stage's folder as it is: objects named by their SHA-256, of which only new ones are sent, and
then one PUT of a pointer that names them. So whoever restores finds the old snapshot or the new one, whole.
"""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rgsud_lib.bundle import payload
from rgsud_lib.errors import BundleError, DataError
from rgsud_lib.files import CHECKPOINT, sha256_file, write_json
from rgsud_lib.storage import transfer
from rgsud_lib.storage.shards import check_name

HOME = ".home.json"  # in a stage's folder whose home is in S3: the address, and what was sent there
POINTER = f"{CHECKPOINT}/snapshot.json"
OBJECTS = f"{CHECKPOINT}/objects"
STATE = f"{CHECKPOINT}/latest.json"  # training's own pointer to its last state
logger = logging.getLogger("rgsud")


def restore(address: str, folder: Path) -> None:
    """Make `folder` what the last snapshot at `address` was; from now on `share` sends there.

    A folder that is at that snapshot already, or for which there is none, is left as it is.
    Raises BundleError: an object of the snapshot is missing or altered.
    """
    files = _pointed_at(address)
    state = folder / STATE
    if files and not (state.is_file() and sha256_file(state) == files.get(STATE)):
        beside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        _fetch(address, files, beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        logger.info("%s: going on from the checkpoint in %s", folder.name, address)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / HOME, {"address": address, "pointed_at": sorted(set(files.values())), "stamps": {}})


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
    address, stamps, sent = home["address"], home["stamps"], set(home["pointed_at"])
    names = [*payload(folder), *(f"{CHECKPOINT}/{name}" for name in payload(folder / CHECKPOINT))]
    stamps = {name: _stamp(folder / name, stamps.get(name)) for name in names}
    files = {name: sha256 for name, (*_, sha256) in stamps.items()}
    fresh = {sha256: name for name, sha256 in files.items() if sha256 not in sent}
    with ThreadPoolExecutor(transfer.THREADS) as pool:
        for _ in pool.map(
            lambda item: transfer.upload(folder / item[1], f"{address}/{OBJECTS}/{item[0]}", item[0]), fresh.items()
        ):
            pass
    transfer.write(f"{address}/{POINTER}", json.dumps({"files": files}, sort_keys=True).encode())
    transfer.delete(f"{address}/{OBJECTS}/{sha256}" for sha256 in sent - set(files.values()))
    write_json(folder / HOME, {"address": address, "pointed_at": sorted(set(files.values())), "stamps": stamps})


def _stamp(path: Path, before: list | None) -> list:
    """Size, time and SHA-256 of a file, which is read only if the first two have changed."""
    status = path.stat()
    if before and before[:2] == [status.st_size, status.st_mtime_ns]:
        return before
    return [status.st_size, status.st_mtime_ns, sha256_file(path)]


def _pointed_at(address: str) -> dict[str, str]:
    """The files of the last snapshot with their SHA-256; none where there is no snapshot."""
    document = transfer.read(f"{address}/{POINTER}")
    try:
        return {check_name(name): sha256 for name, sha256 in json.loads(document)["files"].items()} if document else {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(
            f"{address}/{POINTER} cannot be read ({error!r}); delete {address}/{CHECKPOINT}/ to begin the stage again"
        ) from None


def _fetch(address: str, files: dict[str, str], folder: Path) -> None:
    for parent in {(folder / name).parent for name in files}:
        parent.mkdir(parents=True, exist_ok=True)

    def fetch(item: tuple[str, str]) -> None:
        name, sha256 = item
        transfer.download(f"{address}/{OBJECTS}/{sha256}", folder / name, sha256)

    with ThreadPoolExecutor(transfer.THREADS) as pool:
        for _ in pool.map(fetch, files.items()):
            pass
