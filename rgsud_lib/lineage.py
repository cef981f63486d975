"""From a bundle back to all that it was made from: bundles name their inputs by digest, a workdir holds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rgsud_lib.bundle import MARKER, Bundle, parse_bundle
from rgsud_lib.errors import BundleError
from rgsud_lib.storage.listing import list_objects
from rgsud_lib.storage.remote import open_anywhere
from rgsud_lib.storage.s3 import is_remote

Place = Path | str  # a folder or an s3:// address


def bundles(workdir: Place) -> Iterator[tuple[float, Bundle]]:
    """When each bundle of a workdir was sealed, and the bundle; of its files none but the marker is read."""
    if not is_remote(workdir):
        for marker in Path(workdir).glob(f"stages/*/{MARKER}"):
            yield marker.stat().st_mtime, parse_bundle(marker.read_bytes(), marker.parent)
        return
    for item in list_objects(f"{str(workdir).rstrip('/')}/stages"):
        if item.name.count("/") == 1 and item.name.endswith(f"/{MARKER}"):
            yield item.modified, parse_bundle(item.read(), item.address.removesuffix(f"/{MARKER}"))


def read(place: Place) -> Bundle:
    """The bundle at `place`; of its files none but the marker is read. Raises BundleError: none there."""
    if is_remote(place):
        return open_anywhere(place)
    marker = Path(place, MARKER)
    if not marker.is_file():
        raise BundleError(f"{place} is not a finished bundle ({MARKER} is missing); run the stage that makes it first")
    return parse_bundle(marker.read_bytes(), Path(place))


def newest_first(workdir: Place) -> list[tuple[float, Bundle]]:
    return sorted(bundles(workdir), key=lambda item: item[0], reverse=True)


def workdir_of(place: Place) -> Place:
    """The workdir of a stage's bundle, WORKDIR/stages/<stage>-<key> (or of the copy WORKDIR/export)."""
    if is_remote(place):
        return str(place).rpartition("/stages/")[0]
    folder = Path(place).absolute()
    return folder.parents[1] if folder.parent.name == "stages" else folder.parent


def walk(place: Place) -> list[Bundle]:
    """A bundle and, behind it, all that went into it as far as its workdir still holds it; earlier models too.

    Raises BundleError: `place` is no bundle.
    """
    first = read(place)
    by_digest = {bundle.digest: bundle for _, bundle in newest_first(workdir_of(place))}
    found, waiting = {first.digest: first}, [first]
    while waiting:
        for digest in waiting.pop(0).inputs.values():
            if digest in by_digest and digest not in found:
                found[digest] = by_digest[digest]
                waiting.append(by_digest[digest])
    return list(found.values())
