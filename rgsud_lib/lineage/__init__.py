"""What a bundle was made from: the bundles that it names by digest, theirs, and so on, found among their markers.

Nothing but `bundle.json` files is read, in folders and in S3 alike; what cannot be found is left out (see `gaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rgsud_lib.bundle import MARKER, Bundle, parse_bundle
from rgsud_lib.errors import BundleError
from rgsud_lib.storage.listing import list_objects
from rgsud_lib.storage.remote import open_anywhere
from rgsud_lib.storage.s3 import is_remote

Place = Path | str  # a folder or an s3:// address
Name = tuple[str, str]  # kind and digest
RAW, SHARD = "sources", "shard"  # inputs that are no bundles: the image files, and which part of a stage's work it was
OTHER_KINDS = {"earlier": "dataset"}  # inputs whose name is not their kind


def walk(place: Place, elsewhere: Iterable[Place] = ()) -> list[Bundle]:
    """The bundle at a stage's folder or `s3://` address and all that it was made from, each once, ahead of its inputs.

    Looked for in the bundle's own workdir and in the workdirs `elsewhere`. Raises BundleError: no bundle at `place`;
    DataError: S3 refuses or cannot be reached.
    """
    return behind(read(place), workdir_of(place), *elsewhere)


def behind(first: Bundle, *workdirs: Place) -> list[Bundle]:
    """`walk` from a bundle that was opened elsewhere, such as in the cache of this machine."""
    bundles = known(workdirs) | {name_of(first): first}
    names = inputs_first(name_of(first), lambda name: inputs_of(bundles[name]) if name in bundles else ())
    return [bundles[name] for name in reversed(names) if name in bundles]


def gaps(bundles: Iterable[Bundle]) -> list[Name]:
    """The inputs of these bundles that are not among them: removed, or made in another workdir."""
    bundles = list(bundles)
    there = set(map(name_of, bundles))
    named = dict.fromkeys(name for bundle in bundles for name in inputs_of(bundle))
    return [name for name in named if name not in there and name[0] != RAW]


def name_of(bundle: Bundle) -> Name:
    return bundle.kind, bundle.digest


def inputs_of(bundle: Bundle) -> list[Name]:
    """Kind and digest of the bundles, and of the raw images, that a bundle was made from."""
    inputs = ((OTHER_KINDS.get(name, name), digest) for name, digest in bundle.inputs.items() if name != SHARD)
    return list(dict.fromkeys(inputs))


def inputs_first(start: Name, inputs: Callable[[Name], Iterable[Name]]) -> list[Name]:
    """All that `inputs` leads to from `start`, each once, after what it was made from; `start` is the last."""
    ordered: dict[Name, None] = {}

    def visit(name: Name, waiting: frozenset[Name]) -> None:
        if name not in ordered and name not in waiting:
            for wanted in inputs(name):
                visit(wanted, waiting | {name})
            ordered[name] = None

    visit(start, frozenset())
    return list(ordered)


def known(workdirs: Iterable[Place]) -> dict[Name, Bundle]:
    """The bundles of some workdirs; of equal ones the newest of the first workdir that has it."""
    found: dict[Name, Bundle] = {}
    for workdir in dict.fromkeys(str(workdir).rstrip("/") for workdir in workdirs if workdir):
        for _, bundle in newest_first(workdir):
            found.setdefault(name_of(bundle), bundle)
    return found


def newest_first(workdir: Place) -> list[tuple[float, Bundle]]:
    """When each bundle of a workdir was sealed (Unix time), and the bundle; of its files none but the marker is read.

    Raises as `parse_bundle`; DataError: S3 refuses or cannot be reached.
    """
    return sorted(_bundles(workdir), key=lambda item: item[0], reverse=True)


def read(place: Place) -> Bundle:
    """The bundle of a folder or an `s3://` address, its other files unread. Raises BundleError: there is none."""
    if is_remote(place):
        return open_anywhere(str(place).rstrip("/"))
    marker = Path(place, MARKER)
    if not marker.is_file():
        raise BundleError(f"{place} is not a finished bundle ({MARKER} is missing); run the stage that makes it first")
    return parse_bundle(marker.read_bytes(), Path(place))


def workdir_of(place: Place) -> Place:
    """The workdir of a stage's bundle, WORKDIR/stages/<stage>-<key>, or of the copy WORKDIR/export."""
    if is_remote(place):
        return str(place).rpartition("/stages/")[0]
    folder = Path(place).absolute()
    return folder.parents[1] if folder.parent.name == "stages" else folder.parent


def _bundles(workdir: Place) -> Iterator[tuple[float, Bundle]]:
    if not is_remote(workdir):
        for marker in Path(workdir).glob(f"stages/*/{MARKER}"):
            yield marker.stat().st_mtime, parse_bundle(marker.read_bytes(), marker.parent)
        return
    for item in list_objects(f"{str(workdir).rstrip('/')}/stages"):
        if item.name.count("/") == 1 and item.name.endswith(f"/{MARKER}"):
            yield item.modified, parse_bundle(item.read(), item.address.removesuffix(f"/{MARKER}"))
