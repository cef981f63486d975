"""A bundle's files below an S3 prefix: those of the top level as they are, those in folders packed into shards.

What comes back is compared with the SHA-256 that bundle.json states for every file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rgsud_lib.bundle import Bundle
from rgsud_lib.errors import BundleError
from rgsud_lib.files import sha256_file
from rgsud_lib.storage import shards, transfer
from rgsud_lib.training.progress import Progress

SHARDS = ".shards"  # hidden, so that no file of a bundle can have this name
INDEX = f"{SHARDS}/index.json"


@dataclass(frozen=True)
class Index:
    """Which shards there are (name to SHA-256) and where each packed file lies: shard, offset, size."""

    shards: dict[str, str]
    files: dict[str, tuple[str, int, int]]

    def places(self, shard: str) -> dict[str, tuple[int, int]]:
        return {name: (offset, size) for name, (where, offset, size) in self.files.items() if where == shard}


def send(folder: Path, bundle: Bundle, address: str) -> None:
    """Upload the payload of the sealed bundle in `folder`; what is there already is not sent again.

    Raises BundleError where a file differs from what was sealed; DataError: refused or unreachable.
    """
    sizes = {name: (folder / name).stat().st_size for name in bundle.files}
    packed = {name: size for name, size in sizes.items() if "/" in name and shards.fits(size)}
    groups = shards.plan(packed)
    index = Index({}, {})
    megabytes = sum(sizes.values()) / 1e6
    title = f"sending {address.rsplit('/', 2)[-2]} ({megabytes:.1f} MB)"
    with Progress(title, len(sizes) - len(packed) + len(groups)) as progress:
        for name in sorted(sizes.keys() - packed.keys()):
            transfer.upload(folder / name, f"{address}/{name}", bundle.files[name])
            progress.advance()
        with TemporaryDirectory(dir=folder.parent, prefix=".shards-") as scratch:
            for number, names in enumerate(groups):
                shard = Path(scratch) / f"{number:05d}.tar"
                places = shards.pack(folder, names, shard)
                index.files.update({name: (shard.name, *place) for name, place in places.items()})
                index.shards[shard.name] = transfer.upload(shard, f"{address}/{SHARDS}/{shard.name}")
                shard.unlink()
                progress.advance()
    transfer.write(f"{address}/{INDEX}", json.dumps(vars(index), indent=1, sort_keys=True).encode())


def receive(address: str, bundle: Bundle, folder: Path) -> None:
    """Download a payload into an empty folder.

    Raises BundleError: an object is missing or altered, or a name would leave the folder.
    """
    for name in bundle.files:
        shards.check_name(name)
    index = _read_index(address, bundle)
    plain = sorted(bundle.files.keys() - index.files.keys())
    with Progress(f"fetching {bundle.kind} {bundle.digest}", len(plain) + len(index.shards)) as progress:
        for name in plain:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            transfer.download(f"{address}/{name}", folder / name, bundle.files[name])
            progress.advance()
        for number, (name, sha256) in enumerate(sorted(index.shards.items())):
            shard = folder / f".{number}.tar"
            transfer.download(f"{address}/{SHARDS}/{name}", shard, sha256)
            places = index.places(name)
            shards.unpack(shard, places, folder)
            shard.unlink()
            for file in places:
                if sha256_file(folder / file) != bundle.files[file]:
                    raise BundleError(
                        f"{file} in {address}/{SHARDS}/{name} differs from what bundle.json says (SHA-256); "
                        "delete the bundle and run its stage again"
                    )
            progress.advance()


def _read_index(address: str, bundle: Bundle) -> Index:
    fix = "delete the bundle and run its stage again"
    document = transfer.read(f"{address}/{INDEX}")
    if document is None:
        raise BundleError(f"{address}/{INDEX} is missing; {fix}")
    try:
        index = Index(**json.loads(document))
        good = all(shard in index.shards and min(offset, size) >= 0 for shard, offset, size in index.files.values())
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{address}/{INDEX} cannot be read ({error}); {fix}") from None
    for name in index.files:
        shards.check_name(name)
    unknown = sorted(index.files.keys() - bundle.files.keys())
    if not good or unknown:
        what = f"names {unknown[0]!r}, which bundle.json does not" if unknown else "points outside of its shards"
        raise BundleError(f"{address}/{INDEX} {what}; {fix}")
    return index
