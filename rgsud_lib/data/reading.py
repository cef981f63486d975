"""Source files to stored pictures and records, in threads: Pillow decodes outside the interpreter lock."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rgsud_lib.config import DataConfig, Section
from rgsud_lib.data.decode import decode
from rgsud_lib.data.manifest import ImageRecord, Quarantined, Role, Split, content_id, image_path
from rgsud_lib.data.phash import phash
from rgsud_lib.data.sources import Sources
from rgsud_lib.errors import DataError
from rgsud_lib.fan_out import Shard
from rgsud_lib.files import link_file, write_json, write_png
from rgsud_lib.storage.listing import SourceFile

Records = dict[Role, list[ImageRecord]]
PART = "results.json"
_FILE_OVERHEAD = 2**26  # bytes a file may have beyond 8 a pixel, the most that 16-bit RGBA takes


@dataclass(frozen=True)
class _Item:
    role: Role
    split: Split
    file: SourceFile


class Part(Section):
    """Results of one shard of the files, in their order."""

    results: tuple[ImageRecord | Quarantined, ...]


def read_sources(
    config: DataConfig, sources: Sources, folder: Path, parts: Sequence[Path | None] = (None,)
) -> tuple[Records, list[Quarantined]]:
    """Store every usable picture in `folder`/images; records by role, in the sources' order, and the broken files.

    `parts` are folders that `read_part` filled, one a shard, None for a shard that is read here. Unpaired records
    get the split "train" for now. Raises DataError where a source cannot be read at all.
    """
    items = _items(sources)
    store = _Store(folder)
    records: Records = {"rainy": [], "clean": [], "paired_rainy": [], "paired_clean": []}
    broken: list[Quarantined] = []
    for index, part in enumerate(parts):
        shard = Shard(index, len(parts)).of(items)
        for result in _take(part, store) if part else _read_all(config, shard, store):
            if isinstance(result, Quarantined):
                broken.append(result)
            else:
                records[result.role].append(result)
    return records, broken


def read_part(config: DataConfig, sources: Sources, shard: Shard, folder: Path) -> dict[str, int]:
    """Read one shard of the sources into `folder`; returns how many images are usable and how many are not."""
    results = _read_all(config, shard.of(_items(sources)), _Store(folder))
    write_json(folder / PART, Part(results=tuple(results)).model_dump(mode="json"))
    broken = sum(isinstance(result, Quarantined) for result in results)
    return {"images": len(results) - broken, "quarantined": broken}


def _items(sources: Sources) -> list[_Item]:
    items = [_Item("rainy", "train", file) for file in sources.rainy]
    items += [_Item("clean", "train", file) for file in sources.clean]
    for _, rain, clean in sources.pairs:
        items += [_Item("paired_rainy", "evaluation", rain), _Item("paired_clean", "evaluation", clean)]
    return items


def _read_all(config: DataConfig, items: Sequence[_Item], store: _Store) -> list[ImageRecord | Quarantined]:
    results = []
    with ThreadPoolExecutor(workers()) as pool, _progress(len(items)) as advance:
        for result in pool.map(lambda item: _read(config, item, store), items):
            results.append(result)
            advance()
    return results


def _take(part: Path, store: _Store) -> tuple[ImageRecord | Quarantined, ...]:
    results = Part.model_validate_json((part / PART).read_bytes()).results
    for result in results:
        if isinstance(result, ImageRecord):
            store.adopt(result.id, part)
    return results


def workers() -> int:
    """Threads for reading: a few more than cores, as some wait for the disk or the network."""
    return min(8, 2 * (os.cpu_count() or 1))


def examine(config: DataConfig, role: Role, split: Split, name: str, data: bytes) -> tuple[ImageRecord, np.ndarray]:
    """A file's record and its picture. Raises DataError with the reason where it is not to be used."""
    image = decode(data, config.max_pixels)
    _check_size(image, config.min_side)
    height, width, _ = image.shape
    record = ImageRecord(
        id=content_id(image), role=role, split=split, name=name, height=height, width=width, phash=phash(image),
        source_digest=hashlib.sha256(data).hexdigest(), source_md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )  # fmt: skip
    return record, image


def check_bytes(config: DataConfig, file: SourceFile) -> None:
    """Raises DataError where a file is too large to be read at all."""
    if file.size > 8 * config.max_pixels + _FILE_OVERHEAD:
        raise DataError(f"file too large: {file.size} bytes for at most data.max_pixels={config.max_pixels}")


def _read(config: DataConfig, item: _Item, store: _Store) -> ImageRecord | Quarantined:
    def quarantined(error: DataError) -> Quarantined:
        return Quarantined(name=item.file.name, role=item.role, reason=str(error))

    try:
        check_bytes(config, item.file)
    except DataError as error:
        return quarantined(error)
    data = item.file.read()
    try:
        record, image = examine(config, item.role, item.split, item.file.name, data)
    except DataError as error:
        return quarantined(error)
    store.put(record.id, image)
    return record


def _check_size(image: np.ndarray, min_side: int) -> None:
    height, width, _ = image.shape
    if min(height, width) < min_side:
        rule = f"the shorter side must have at least data.min_side={min_side}"
        raise DataError(f"too small: {width}x{height} pixels, {rule}")


class _Store:
    """Writes each distinct picture once, from whichever thread meets it first."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._claimed: set[str] = set()
        (folder / "images").mkdir(parents=True, exist_ok=True)

    def put(self, id: str, image: np.ndarray) -> None:
        with self._lock:
            mine = id not in self._claimed
            self._claimed.add(id)
        path = image_path(self._folder, id)
        if mine and not path.exists():  # a file that exists is whole: an earlier, killed run wrote it
            write_png(path, image)

    def adopt(self, id: str, part: Path) -> None:
        """Take a picture that another store wrote."""
        path = image_path(self._folder, id)
        if not path.exists():
            beside = path.with_name(f".{path.name}.partial")
            beside.unlink(missing_ok=True)
            link_file(image_path(part, id), beside)
            beside.replace(path)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading images", total=total)
        yield lambda: bar.advance(task)
