"""A workdir in S3: stages work in a folder of this machine, and what they finish lives under an `s3://` address.

WORKDIR/stages/<stage>-<key>/bundle.json is written last, by one conditional PUT: of two racing machines the first
wins and the second takes its bundle. The payload lies beside it under the bundle's digest, so that they cannot mix.
What was made or fetched stays in the cache ($RGSUD_CACHE, default ~/.cache/rgsud) and is not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rgsud_lib.bundle import MARKER, Bundle, is_sealed, open_bundle, parse_bundle
from rgsud_lib.config import digest_of
from rgsud_lib.errors import BundleError
from rgsud_lib.files import link_tree
from rgsud_lib.storage import payload, snapshots, transfer
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.task import exclusive

FETCH_PATIENCE = 3600.0  # seconds to wait for another process of this machine that fills the same folder of the cache
logger = logging.getLogger("rgsud")


def cache_folder() -> Path:
    """Where this machine keeps what it fetched and what it works on; may be removed while nothing runs."""
    return Path(os.environ.get("RGSUD_CACHE") or "~/.cache/rgsud").expanduser().absolute()


def local_root(workdir: Path | str) -> Path:
    """The workdir itself, or the folder of the cache in which this machine works for one in S3."""
    if not is_remote(workdir):
        return Path(workdir).resolve()
    return cache_folder() / "work" / digest_of(str(workdir).rstrip("/"))


def find(address: str, kind: str | None = None) -> Bundle | None:
    """The finished bundle at an `s3://` address, None where there is none. Raises BundleError as `open_bundle` does."""
    document = transfer.read(f"{address}/{MARKER}")
    return None if document is None else _parse(document, address, kind)


def is_finished(location: Path | str) -> bool:
    """Whether a bundle is there; it is not verified."""
    return find(str(location)) is not None if is_remote(location) else is_sealed(Path(location))


def remove(location: Path | str) -> None:
    """Remove a bundle, its marker first."""
    if is_remote(location):
        transfer.delete([f"{location}/{MARKER}"])
        transfer.delete_below(str(location))
    else:
        (Path(location) / MARKER).unlink(missing_ok=True)
        shutil.rmtree(location, ignore_errors=True)


def open_anywhere(location: Path | str, kind: str | None = None) -> Bundle:
    """`open_bundle` of a folder, or what `find` finds: in S3 the payload is looked at when it is fetched."""
    if not is_remote(location):
        return open_bundle(Path(location), kind)
    return _parse(_marker(str(location)), str(location), kind)


def pulled(location: Path | str) -> Path:
    """A folder with the bundle: the one given, or the cache's copy of one in S3, fetched where it is not there yet.

    Raises BundleError: no bundle, or one that is incomplete or altered; DataError: refused or unreachable.
    """
    if not is_remote(location):
        return Path(location)
    address = str(location).rstrip("/")
    document = _marker(address)
    bundle = _parse(document, address)
    with _cached(bundle, document) as target:
        if not _intact(target):
            beside = target.with_name(f".{target.name}.partial")
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            payload.receive(f"{address}/{bundle.digest}", bundle, beside)
            (beside / MARKER).write_bytes(document)
            beside.rename(target)
    return target


def finish(address: str, kind: str, make: Callable[[Path, Callable[[], None]], None]) -> str:
    """Have a stage's bundle at `address`: it is there, or it is made here, where need be from its checkpoint in S3.

    `make(folder, deliver)` seals a bundle in `folder` and then calls `deliver`. Returns the address.
    """
    workdir, _, name = address.rpartition("/stages/")
    folder = local_root(workdir) / "stages" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f".{name}.lock"), FETCH_PATIENCE):
        found = find(address, kind)
        if found:
            logger.info("%s: finished before, taken from %s", name, address)
        elif is_sealed(folder):  # a process that was killed before it had delivered
            found = _deliver(folder, address)
        else:
            snapshots.restore(address, folder)
            make(folder, lambda: _deliver(folder, address))
            found = open_anywhere(address, kind)
        shutil.rmtree(folder, ignore_errors=True)
        pointer = {"address": address, "digest": found.digest}
        transfer.write(f"{workdir}/latest/{kind}.json", json.dumps(pointer).encode())
    return address


def newest(kind: str, workdir: Path | str) -> Path | str:
    """The bundle that a stage last finished in a workdir. Raises BundleError: none yet."""
    if is_remote(workdir):
        document = transfer.read(f"{str(workdir).rstrip('/')}/latest/{kind}.json")
        if document:
            return json.loads(document)["address"]
    else:
        markers = Path(workdir).glob(f"stages/*/{MARKER}")
        for marker in sorted(markers, key=lambda path: path.stat().st_mtime, reverse=True):
            if json.loads(marker.read_text())["kind"] == kind:
                return marker.parent
    raise BundleError(
        f"no finished {kind!r} bundle in {workdir}; run the stage that makes it first, or name its folder"
    )


def model_path(location: Path | str) -> Path:
    """Where `inference.find_model` finds a model: in S3 one `.safetensors` object, a stage's address or a workdir."""
    address = str(location).rstrip("/")
    if not is_remote(location):
        return Path(location)
    if address.endswith(".safetensors"):
        file = cache_folder() / "models" / digest_of(address) / address.rpartition("/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        transfer.download(address, file)
        return file
    return pulled(address if find(address) else newest("export", address))


def _marker(address: str) -> bytes:
    document = transfer.read(f"{address.rstrip('/')}/{MARKER}")
    if document is None:
        raise BundleError(
            f"{address} is not a finished bundle ({MARKER} is missing); run the stage that makes it first"
        )
    return document


def _parse(document: bytes, address: str, kind: str | None = None) -> Bundle:
    bundle = parse_bundle(document, address, kind)
    if bundle.digest != digest_of(bundle.files):
        raise BundleError(f"{address}/{MARKER} was altered (its digest differs); delete it and run its stage again")
    return bundle


def _deliver(folder: Path, address: str) -> Bundle:
    """Send a sealed bundle, its marker last; one that another process delivered meanwhile is taken instead."""
    document = (folder / MARKER).read_bytes()
    bundle = parse_bundle(document, folder)
    payload.send(folder, bundle, f"{address}/{bundle.digest}")
    first = transfer.create(f"{address}/{MARKER}", document)
    snapshots.forget(address)
    if first:
        logger.info("%s delivered", address)
        with _cached(bundle, document) as target:
            if not _intact(target):
                link_tree(folder, target)
        return bundle
    theirs = open_anywhere(address, bundle.kind)
    logger.info("%s: another process was first; its bundle is taken", address)
    if theirs.digest != bundle.digest:
        transfer.delete_below(f"{address}/{bundle.digest}")
    return theirs


@contextmanager
def _cached(bundle: Bundle, document: bytes) -> Iterator[Path]:
    """A bundle's folder in the cache, which no other process fills meanwhile."""
    made_from = hashlib.sha256(document).hexdigest()[:8]  # equal files made from other inputs are another bundle
    target = cache_folder() / "bundles" / f"{bundle.digest}-{made_from}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(target.with_name(f".{target.name}.lock"), FETCH_PATIENCE):
        yield target


def _intact(folder: Path) -> bool:
    """Whether the cache holds the bundle; a damaged copy is removed."""
    try:
        open_bundle(folder)
        return True
    except BundleError as error:
        if folder.exists():
            logger.warning("the cache is damaged, the bundle is fetched again: %s", error)
            shutil.rmtree(folder)
        return False
