"""Stage `prepare`: raw files in, a validated, deduplicated, leak-free and split dataset out.

Pictures are stored under the digest of their content and the manifest is written last, so a killed
run leaves nothing that a second run could trip over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rgsud_lib.config import DataConfig, digest_of
from rgsud_lib.data.curation import drop_duplicates, refuse_leaks, split_scenes
from rgsud_lib.data.manifest import MANIFEST, Duplicate, ImageRecord, Manifest, Pair, Quarantined
from rgsud_lib.data.phash import nearest
from rgsud_lib.data.reading import Records, read_sources, workers
from rgsud_lib.data.report import write_report
from rgsud_lib.data.sources import Sources, find_sources
from rgsud_lib.errors import DataError
from rgsud_lib.files import write_json
from rgsud_lib.storage.listing import SourceFile

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
    digests: dict[str, dict[str, str]] = {}
    with ThreadPoolExecutor(workers()) as pool:
        for role, group in files.items():
            names = (file.name for file in group)
            digests[role] = dict(zip(names, pool.map(SourceFile.digest, group), strict=True))
    if set(digests["rainy"].values()) == set(digests["clean"].values()):
        what = f"rainy {rainy} and clean {clean} hold the same {len(sources.rainy)} files"
        raise DataError(f"{what}; give rainy images in one, clean images in the other")
    return digest_of(digests)


def prepare_dataset(
    config: DataConfig,
    rainy: str,
    clean: str,
    paired: str | None,
    folder: Path,
    earlier: Manifest | None = None,
    parts: Sequence[Path | None] = (None,),
) -> dict[str, Any]:
    """Make the payload of a "dataset" bundle in `folder`: images/, report.html and, last, manifest.json.

    The images of `earlier`, what the last model learnt from, stay in training or held back, as they were. `parts` as
    in `read_sources`.
    Returns counts, warnings and `transductive`, the number of pairs whose rainy scene is also trained on.
    Raises DataError: what find_sources refuses, fewer than two usable images in a domain, unequal pairs.
    """
    sources = find_sources(rainy, clean, paired)
    records, broken = read_sources(config, sources, folder, parts)
    manifest = _curate(config, sources, records, broken, earlier)
    write_report(folder / "report.html", manifest, [record for group in records.values() for record in group])
    _prune(folder / "images", {image.id for image in manifest.images})
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return facts(manifest)


def facts(manifest: Manifest) -> dict[str, Any]:
    """What the bundle, the evaluation and the model card say about a dataset."""
    counts = {
        f"{role}_{split}": len(manifest.select(role, split))
        for role in ("rainy", "clean")
        for split in ("train", "validation")
    }
    return {
        **counts,
        "pairs": len(manifest.pairs),
        "transductive": len(_transductive(manifest)),
        "quarantined": len(manifest.quarantined),
        "duplicates": len(manifest.duplicates),
        "images": len(manifest.images),
        "megapixels": sum(image.height * image.width for image in manifest.images) / 1e6,
        "warnings": list(manifest.warnings),
    }


def _curate(
    config: DataConfig, sources: Sources, records: Records, broken: list[Quarantined], earlier: Manifest | None
) -> Manifest:
    before = earlier.all_records() if earlier else ()
    pairs = usable_pairs(sources, records, broken)
    used = {id for pair in pairs for id in (pair.rainy, pair.clean)}
    evaluation = [record for role in ("paired_rainy", "paired_clean") for record in records[role] if record.id in used]
    rainy, rainy_duplicates = drop_duplicates(records["rainy"], config.duplicate_bits)
    clean, clean_duplicates = drop_duplicates(records["clean"], config.duplicate_bits)
    clean, leaks = refuse_leaks(clean, evaluation, config.leak_bits)
    quarantined = sorted([*broken, *leaks], key=lambda item: (item.role, item.name))
    images, warnings = [], list(sources.warnings)
    for role, group, dropped in (("rainy", rainy, rainy_duplicates), ("clean", clean, clean_duplicates)):
        _check_enough(role, group, quarantined, dropped)
        old = [record for record in before if record.role == role]
        split, whole = split_scenes(group, config.validation_fraction, config.leak_bits, config.seed, old)
        images += split
        if not whole:
            warnings.append(f"{role}: all images show one scene, so training and validation share it")
    manifest = Manifest(
        images=(*images, *evaluation), pairs=tuple(pairs), quarantined=tuple(quarantined),
        duplicates=(*rainy_duplicates, *clean_duplicates), scene_bits=config.leak_bits,
        retired=_retired(before, images),
    )  # fmt: skip
    return manifest.model_copy(update={"warnings": (*warnings, *_warnings(manifest, len(sources.pairs)))})


def _retired(before: Sequence[ImageRecord], images: list[ImageRecord]) -> tuple[ImageRecord, ...]:
    """The unpaired images of earlier datasets that are no more among `images`."""
    present = {(image.role, image.id) for image in images}
    unpaired = (record for record in before if record.role in ("rainy", "clean"))
    return tuple(record for record in unpaired if (record.role, record.id) not in present)


def usable_pairs(sources: Sources, records: Records, broken: list[Quarantined]) -> list[Pair]:
    """Pairs of which both files are usable. Raises DataError: sizes differ, or not one pair is left."""
    rain = {record.name: record for record in records["paired_rainy"]}
    clean = {record.name: record for record in records["paired_clean"]}
    whole = [(name, rain[r.name], clean[c.name]) for name, r, c in sources.pairs if r.name in rain and c.name in clean]
    unequal = [
        f"{name} ({r.width}x{r.height} rainy, {c.width}x{c.height} clean)"
        for name, r, c in whole
        if (r.height, r.width) != (c.height, c.width)
    ]
    if unequal:
        shown = ", ".join(unequal[:5]) + (f" and {len(unequal) - 5} more" if len(unequal) > 5 else "")
        raise DataError(f"paired images of different size: {shown}; both of a pair must show the same pixels")
    if sources.pairs and not whole:
        reasons = _reasons(item for item in broken if item.role.startswith("paired"))
        raise DataError(f"not one of {len(sources.pairs)} pairs is usable ({reasons}); replace the broken images")
    return [Pair(rainy=r.id, clean=c.id, name=name) for name, r, c in whole]


def _check_enough(
    role: str, kept: Sequence[ImageRecord], quarantined: Iterable[Quarantined], duplicates: Sequence[Duplicate]
) -> None:
    if len(kept) < MINIMUM:
        reasons = _reasons(item for item in quarantined if item.role == role)
        reasons += f"; near-duplicates: {len(duplicates)}" if duplicates else ""
        what = f"only {len(kept)} usable {role} images, at least {MINIMUM} are needed"
        raise DataError(f"{what} ({reasons}); add or replace images")


def _reasons(items: Iterable[Quarantined]) -> str:
    """Kinds of fault with their counts and one example each: `damaged image: 3 (a.png: truncated)`."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for item in items:
        kind, _, detail = item.reason.partition(": ")
        counts[kind] += 1
        examples.setdefault(kind, f"{item.name}: {detail}")
    listed = "; ".join(f"{kind}: {count} ({examples[kind]})" for kind, count in counts.most_common())
    return listed or "none were refused"


def _warnings(manifest: Manifest, pairs_given: int) -> list[str]:
    found = []
    if manifest.quarantined:
        found.append(f"quarantined files: {len(manifest.quarantined)}; {_reasons(manifest.quarantined)}")
    if lost := pairs_given - len(manifest.pairs):
        found.append(f"{lost} of {pairs_given} pairs are not evaluated, as one side could not be used")
    if seen := len(_transductive(manifest)):
        what = f"{seen} of {len(manifest.pairs)} evaluation pairs show a rainy scene that is also trained on"
        found.append(f"transductive: {what}")
    rainy, clean = manifest.select("rainy"), manifest.select("clean")
    best, apart = nearest([image.phash for image in clean], [image.phash for image in rainy])
    shared = (apart <= manifest.scene_bits).nonzero()[0]
    if len(shared):
        first = f"such as {clean[shared[0]].name} and {rainy[best[shared[0]]].name}"
        found.append(f"not fully unpaired: {len(shared)} clean images show a rainy scene, {first}")
    return found


def _transductive(manifest: Manifest) -> list[Pair]:
    ids = manifest.transductive()
    return [pair for pair in manifest.pairs if pair.rainy in ids]


def _prune(images: Path, used: set[str]) -> None:
    """Remove pictures of dropped files, and what a killed run left half-written."""
    for path in images.iterdir():
        if path.stem not in used:  # the hidden names of half-written files are nobody's id
            path.unlink()
