"""Stage `prepare`: raw files in, a validated, deduplicated, leak-free and split dataset out.

Pictures are stored under the digest of their content and the manifest is written last, so a killed
run leaves nothing that a second run could trip over.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from rgsud_lib.config import DataConfig, digest_of
from rgsud_lib.data.curation import drop_duplicates, refuse_leaks, split_scenes
from rgsud_lib.data.decode import decode
from rgsud_lib.data.manifest import MANIFEST, ImageRecord, Manifest, Pair, Quarantined, Role, Split, content_id, image_path
from rgsud_lib.data.phash import near_pairs, phash
from rgsud_lib.data.report import write_report
from rgsud_lib.data.sources import Sources, find_sources
from rgsud_lib.errors import DataError
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.storage import SourceFile

MINIMUM = 2  # usable images a domain: one to train on, one to hold back


def source_digest(rainy: str, clean: str, paired: str | None) -> str:
    """16 hex digits over the names and contents of all source files, not over where they lie.

    Raises DataError for what find_sources refuses, and where rainy and clean hold the same files.
    """
    sources = find_sources(rainy, clean, paired)
    files = {
        "rainy": sources.rainy,
        "clean": sources.clean,
        "paired_rainy": [rain for _, rain, _ in sources.pairs],
        "paired_clean": [clean for _, _, clean in sources.pairs],
    }
    with ThreadPoolExecutor(_workers()) as pool:
        digests = {role: dict(zip((f.name for f in group), pool.map(SourceFile.digest, group), strict=True)) for role, group in files.items()}
    if set(digests["rainy"].values()) == set(digests["clean"].values()):
        raise DataError(f"rainy {rainy} and clean {clean} hold the same {len(sources.rainy)} files; give rainy images in one, clean in the other")
    return digest_of(digests)


def prepare_dataset(config: DataConfig, rainy: str, clean: str, paired: str | None, folder: Path) -> dict[str, Any]:
    """Make the payload of a "dataset" bundle in `folder`: images/, report.html and, last, manifest.json.

    Returns counts, warnings and `transductive`, the number of pairs whose rainy scene is also trained on.
    Raises DataError: what source_digest refuses, fewer than two usable images in a domain, unequal pairs.
    """
    sources = find_sources(rainy, clean, paired)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records, broken = _read_all(config, sources, folder)
    manifest = _curate(config, sources, records, broken)
    everything = [record for group in records.values() for record in group]
    write_report(folder / "report.html", folder, manifest, everything)
    _prune(folder / "images", {image.id for image in manifest.images})
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return facts(manifest)


def facts(manifest: Manifest) -> dict[str, Any]:
    """What the bundle, the evaluation and the model card say about a dataset."""
    return {
        **{f"{role}_{split}": len(manifest.select(role, split)) for role in ("rainy", "clean") for split in ("train", "validation")},
        "pairs": len(manifest.pairs),
        "transductive": len({pair.rainy for pair in manifest.pairs} & manifest.transductive()),
        "quarantined": len(manifest.quarantined),
        "duplicates": len(manifest.duplicates),
        "warnings": list(manifest.warnings),
    }


# Reading: files to stored pictures and records, in threads (Pillow decodes outside the interpreter lock).


@dataclass(frozen=True)
class _Item:
    role: Role
    split: Split
    file: SourceFile


def _read_all(config: DataConfig, sources: Sources, folder: Path) -> tuple[dict[Role, list[ImageRecord]], list[Quarantined]]:
    items = [_Item("rainy", "train", file) for file in sources.rainy] + [_Item("clean", "train", file) for file in sources.clean]
    for _, rain, clean in sources.pairs:
        items += [_Item("paired_rainy", "evaluation", rain), _Item("paired_clean", "evaluation", clean)]
    store = _Store(folder)
    records: dict[Role, list[ImageRecord]] = {"rainy": [], "clean": [], "paired_rainy": [], "paired_clean": []}
    broken: list[Quarantined] = []
    with ThreadPoolExecutor(_workers()) as pool, _progress(len(items)) as advance:
        for result in pool.map(lambda item: _read(config, item, store), items):
            broken.append(result) if isinstance(result, Quarantined) else records[result.role].append(result)
            advance()
    return records, broken


def _read(config: DataConfig, item: _Item, store: _Store) -> ImageRecord | Quarantined:
    data = item.file.read()
    try:
        image = decode(data, config.max_pixels)
    except DataError as error:
        return Quarantined(name=item.file.name, role=item.role, reason=str(error))
    height, width, _ = image.shape
    if min(height, width) < config.min_side:
        reason = f"too small: {width}x{height} pixels, the shorter side must have at least data.min_side={config.min_side}"
        return Quarantined(name=item.file.name, role=item.role, reason=reason)
    return ImageRecord(
        id=store.put(image), role=item.role, split=item.split, name=item.file.name, height=height, width=width,
        source_digest=hashlib.sha256(data).hexdigest(), phash=phash(image),
    )  # fmt: skip


class _Store:
    """Writes each distinct picture once, from whichever thread meets it first."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._claimed: set[str] = set()

    def put(self, image: Any) -> str:
        id = content_id(image)
        with self._lock:
            mine = id not in self._claimed
            self._claimed.add(id)
        path = image_path(self._folder, id)
        if mine and not path.exists():  # a file that exists is whole: an earlier, killed run wrote it
            buffer = BytesIO()
            Image.fromarray(image).save(buffer, "PNG", compress_level=3)
            write_bytes(path, buffer.getvalue())
        return id


# Curation: what is kept, and what a person should know.


def _curate(config: DataConfig, sources: Sources, records: dict[Role, list[ImageRecord]], broken: list[Quarantined]) -> Manifest:
    pairs = _pair_up(sources, records, broken)
    used = {id for pair in pairs for id in (pair.rainy, pair.clean)}
    evaluation = [record for role in ("paired_rainy", "paired_clean") for record in records[role] if record.id in used]
    rainy, duplicates = drop_duplicates(records["rainy"], config.duplicate_bits)
    clean, more = drop_duplicates(records["clean"], config.duplicate_bits)
    clean, leaks = refuse_leaks(clean, evaluation, config.leak_bits)
    quarantined = sorted([*broken, *leaks], key=lambda item: (item.role, item.name))
    duplicates += more
    warnings = list(sources.warnings)
    images: list[ImageRecord] = []
    for role, group in (("rainy", rainy), ("clean", clean)):
        _check_enough(role, group, quarantined, sum(duplicate.role == role for duplicate in duplicates))
        split, whole = split_scenes(group, config.validation_fraction, config.leak_bits, config.seed)
        if not whole:
            warnings.append(f"{role}: all images show one scene, so training and validation share it")
        images += split
    manifest = Manifest(
        images=(*images, *evaluation), pairs=tuple(pairs), quarantined=tuple(quarantined), duplicates=tuple(duplicates),
        scene_bits=config.leak_bits,
    )  # fmt: skip
    return manifest.model_copy(update={"warnings": tuple(warnings + _warnings(manifest, len(sources.pairs)))})


def _pair_up(sources: Sources, records: dict[Role, list[ImageRecord]], broken: list[Quarantined]) -> list[Pair]:
    """Pairs of which both files are usable. Raises DataError: sizes differ, or not one pair is left."""
    rain = {record.name: record for record in records["paired_rainy"]}
    clean = {record.name: record for record in records["paired_clean"]}
    whole = [(name, rain[r.name], clean[c.name]) for name, r, c in sources.pairs if r.name in rain and c.name in clean]
    unequal = [
        f"{name} ({r.width}x{r.height} rainy, {c.width}x{c.height} clean)" for name, r, c in whole if (r.height, r.width) != (c.height, c.width)
    ]
    if unequal:
        shown = ", ".join(unequal[:5]) + (f" and {len(unequal) - 5} more" if len(unequal) > 5 else "")
        raise DataError(f"paired images of different size: {shown}; both of a pair must show the same pixels")
    if sources.pairs and not whole:
        raise DataError(f"not one usable pair among {len(sources.pairs)}: {_reasons(item for item in broken if 'paired' in item.role)}")
    return [Pair(rainy=r.id, clean=c.id, name=name) for name, r, c in whole]


def _check_enough(role: str, kept: Sequence[ImageRecord], quarantined: Iterable[Quarantined], duplicates: int) -> None:
    if len(kept) >= MINIMUM:
        return
    reasons = _reasons(item for item in quarantined if item.role == role)
    reasons += f"; near-duplicates: {duplicates}" if duplicates else ""
    raise DataError(f"only {len(kept)} usable {role} images, at least {MINIMUM} are needed ({reasons}); add or replace images")


def _reasons(items: Iterable[Quarantined]) -> str:
    """Faults with their counts and one example each: `damaged image: 3 (such as a.png)`."""
    items = list(items)
    counts = Counter(item.reason.partition(":")[0] for item in items)
    example = {item.reason.partition(":")[0]: f"{item.name}: {item.reason.partition(':')[2].strip()}" for item in reversed(items)}
    return "; ".join(f"{kind}: {count} (such as {example[kind]})" for kind, count in counts.most_common()) or "no more images given"


def _warnings(manifest: Manifest, pairs_given: int) -> list[str]:
    found = []
    if manifest.quarantined:
        found.append(f"{len(manifest.quarantined)} files are quarantined: {_reasons(manifest.quarantined)}")
    if lost := pairs_given - len(manifest.pairs):
        found.append(f"{lost} of {pairs_given} pairs are not evaluated, as one side could not be used")
    if seen := len({pair.rainy for pair in manifest.pairs} & manifest.transductive()):
        found.append(f"transductive: {seen} of {len(manifest.pairs)} evaluation pairs show a rainy scene that is also trained on")
    rainy, clean = manifest.select("rainy"), manifest.select("clean")
    shared = near_pairs([image.phash for image in clean], [image.phash for image in rainy], manifest.scene_bits)
    if shared:
        i, j, _ = shared[0]
        found.append(
            f"{len({i for i, _, _ in shared})} clean images show a scene that is also rainy, such as {clean[i].name} and {rainy[j].name}: "
            "not fully unpaired"
        )
    return found


def _prune(images: Path, used: set[str]) -> None:
    """Remove pictures of dropped files, and what a killed run left half-written."""
    for path in images.iterdir():
        if path.stem not in used or path.name.startswith("."):
            path.unlink()


def _workers() -> int:
    return min(8, 2 * (os.cpu_count() or 1))


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
