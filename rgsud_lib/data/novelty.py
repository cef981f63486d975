"""What a rainy prefix has that a dataset does not: new pictures, counted, and measured against the known ones.

Only files whose content the manifest does not have are read; the drift test looks at a sample of both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rgsud_lib.config import DataConfig
from rgsud_lib.data.curation import drop_duplicates
from rgsud_lib.data.decode import decode
from rgsud_lib.data.drift import Description, Drift, choose, compare, describe
from rgsud_lib.data.manifest import ImageRecord, Manifest, Quarantined, read_image
from rgsud_lib.data.phash import nearest
from rgsud_lib.data.reading import check_bytes, examine, workers
from rgsud_lib.errors import DataError
from rgsud_lib.storage.listing import SourceFile
from rgsud_lib.storage.remote import pulled

SHOWN = 8  # unusual new images that are kept to be looked at


@dataclass(frozen=True)
class Unusual:
    """A new image far from all known ones: its name, its picture (uint8 H x W x 3), its rain in [0,1]."""

    name: str
    image: np.ndarray
    intensity: float


@dataclass(frozen=True)
class Novelty:
    """`new` pictures at the prefix; `repeats`: further files of pictures that are known or new already; `gone`: images
    of the manifest that the prefix has no more. `known_rain`, `new_rain`: intensities of the sampled images, in [0,1].
    """

    new: tuple[ImageRecord, ...]
    unreadable: tuple[Quarantined, ...] = ()
    repeats: int = 0
    gone: int = 0
    drift: Drift | None = None
    known_rain: tuple[float, ...] = ()
    new_rain: tuple[float, ...] = ()
    unusual: tuple[Unusual, ...] = ()


def find_novelty(
    config: DataConfig, files: Sequence[SourceFile], manifest: Manifest, dataset: Path | str, sample: int
) -> Novelty:
    """Compare the files of a prefix with a manifest whose pictures lie in the bundle `dataset`, which is fetched only
    where something is new; describe at most `sample` images of each side.
    """
    known = manifest.select("rainy")
    with ThreadPoolExecutor(workers()) as pool:
        ids = list(pool.map(_recognise(known), files))
        unknown = [file for file, id in zip(files, ids, strict=True) if id is None]
        results = list(pool.map(lambda file: _examine(config, file), unknown))
        records = [result for result in results if isinstance(result, ImageRecord)]
        new = _new_pictures(records, known, config.duplicate_bits)
        gone = {record.id for record in known} - set(ids) - {record.id for record in records}
        unreadable = tuple(result for result in results if isinstance(result, Quarantined))
        found = Novelty(tuple(new), unreadable, len(records) - len(new), len(gone))
        if not new:
            return found
        folder, chosen = pulled(dataset), choose((record.id for record in manifest.select("rainy", "train")), sample)
        before = list(pool.map(lambda id: describe(read_image(folder, id)), chosen))
        by_name, names = {file.name: file for file in unknown}, {record.id: record.name for record in new}
        after = {names[id]: by_name[names[id]] for id in choose(names, sample)}
        return _measured(found, before, after, lambda file: decode(file.read(), config.max_pixels), pool)


def _measured(
    found: Novelty,
    before: Sequence[Description],
    files: dict[str, SourceFile],
    load: Callable[[SourceFile], np.ndarray],
    pool: ThreadPoolExecutor,
) -> Novelty:
    """`found` with the drift of the pictures in `files`, by name, against the images described in `before`."""
    chosen = list(files)
    after = list(pool.map(lambda file: describe(load(file)), files.values()))
    drift = compare(before, after)
    return replace(
        found,
        drift=drift,
        known_rain=tuple(item.intensity for item in before),
        new_rain=tuple(item.intensity for item in after),
        unusual=tuple(
            Unusual(chosen[index], load(files[chosen[index]]), after[index].intensity)
            for index in drift.unusual[:SHOWN]
        ),
    )


def _recognise(known: Sequence[ImageRecord]) -> Callable[[SourceFile], str | None]:
    """A function from a file to the id of the known image it holds, told without reading an S3 object."""
    ids = {record.source_digest: record.id for record in known}
    ids |= {record.source_md5: record.id for record in known if record.source_md5}

    def recognise(file: SourceFile) -> str | None:
        try:
            content = file.digest()
        except DataError:
            return None  # it is read next, which says why that fails
        return ids.get(content.rpartition("-")[0] if file.tag else content)

    return recognise


def _examine(config: DataConfig, file: SourceFile) -> ImageRecord | Quarantined:
    try:
        check_bytes(config, file)
        return examine(config, "rainy", "train", file.name, file.read())[0]
    except DataError as error:
        return Quarantined(name=file.name, role="rainy", reason=str(error))


def _new_pictures(records: Sequence[ImageRecord], known: Sequence[ImageRecord], bits: int) -> list[ImageRecord]:
    """Those that `prepare` would keep beside the known ones: near-duplicates of a known or of another one are none."""
    if not records:
        return []
    _, apart = nearest([record.phash for record in records], [record.phash for record in known])
    other = [record for record, distance in zip(records, apart, strict=True) if distance > bits]
    return drop_duplicates(other, bits)[0]
