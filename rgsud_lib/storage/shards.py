"""Many small files as few large ones: tar shards with an index that says where in which shard a file lies.

Anybody's tar can open a shard. We never extract one: bytes are read at the index's offsets and written under
names that were checked, so that no archive can place a file, or a link, outside its folder.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rgsud_lib.errors import BundleError

SHARD_BYTES = 256 * 2**20  # of a shard at most
HEADER = 3 * 512  # of one member at most, its name up to 500 bytes
END = tarfile.RECORDSIZE  # a tar is padded to a multiple of this
CHUNK = 2**20


def fits(size: int) -> bool:
    """Whether a file of this size can be in a shard."""
    return HEADER + size + tarfile.BLOCKSIZE + END <= SHARD_BYTES


def plan(sizes: Mapping[str, int]) -> list[list[str]]:
    """The files of each shard, in the order of their names; each `fits`."""
    groups: list[list[str]] = []
    free = 0
    for name, size in sorted(sizes.items()):
        needed = HEADER + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if needed > free:
            groups.append([])
            free = SHARD_BYTES - END
        groups[-1].append(name)
        free -= needed
    return groups


def pack(folder: Path, names: list[str], shard: Path) -> dict[str, tuple[int, int]]:
    """Write a tar of some of a folder's files, the same bytes for the same files; returns offset and size of each."""
    places = {}
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = (folder / name).stat().st_size
            header = member.tobuf(tar.format, tar.encoding, tar.errors)
            places[name] = (tar.offset + len(header), member.size)
            with open(folder / name, "rb") as file:
                tar.addfile(member, file)
    return places


def unpack(shard: Path, places: Mapping[str, tuple[int, int]], folder: Path) -> None:
    """Write files of a shard into a folder. Raises BundleError: an unsafe name, or a place outside of the shard."""
    with open(shard, "rb") as source:
        for name, (offset, size) in places.items():
            path = folder / check_name(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            source.seek(offset)
            with open(path, "wb") as target:
                for chunk in _chunks(source, size):
                    target.write(chunk)
            if path.stat().st_size != size:
                raise BundleError(f"{shard.name} is too short for {name} ({size} bytes at {offset}); make it again")


def check_name(name: str) -> str:
    """A relative POSIX path that stays in its folder. Raises BundleError for any other."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise BundleError(f"refused to write {name!r}: expected a relative path without '..'; who made this bundle?")
    return name


def _chunks(source: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := source.read(min(size, CHUNK))):
        yield chunk
        size -= len(chunk)
