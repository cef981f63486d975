"""Which images a dataset keeps: duplicates dropped, leaks refused, scenes split. Pure functions of the records.

A scene is a set of images whose perceptual hashes are near; it never lies in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rgsud_lib.data.manifest import Duplicate, ImageRecord, Quarantined, Split
from rgsud_lib.data.phash import as_words, distances, nearest, scenes
from rgsud_lib.errors import DataError


def drop_duplicates(records: Sequence[ImageRecord], bits: int) -> tuple[list[ImageRecord], list[Duplicate]]:
    """Keep the largest of each set of near-duplicates (the first by name among equals); both results by name."""
    ranked = sorted(records, key=lambda record: (-record.height * record.width, record.name))
    words = as_words([record.phash for record in ranked])
    kept: list[int] = []
    duplicates = []
    for index, record in enumerate(ranked):
        apart = distances(words[[index]], words[kept])[0]
        if kept and apart.min() <= bits:
            original = ranked[kept[apart.argmin()]].name
            duplicates.append(Duplicate(name=record.name, role=record.role, kept=original, bits=int(apart.min())))
        else:
            kept.append(index)
    by_name = sorted((ranked[index] for index in kept), key=lambda record: record.name)
    return by_name, sorted(duplicates, key=lambda duplicate: duplicate.name)


def refuse_leaks(
    clean: Sequence[ImageRecord], evaluation: Sequence[ImageRecord], bits: int
) -> tuple[list[ImageRecord], list[Quarantined]]:
    """Refuse clean training images whose scene occurs, rainy or clean, in the evaluation set."""
    if not evaluation:
        return list(clean), []
    best, apart = nearest([record.phash for record in clean], [record.phash for record in evaluation])
    kept, refused = [], []
    for record, index, distance in zip(clean, best.tolist(), apart.tolist(), strict=True):
        if distance <= bits:
            reason = f"leak: the scene of the evaluation image {evaluation[index].name} ({distance} of 256 bits apart)"
            refused.append(Quarantined(name=record.name, role=record.role, reason=reason, id=record.id))
        else:
            kept.append(record)
    return kept, refused


def split_scenes(
    records: Sequence[ImageRecord], fraction: float, scene_bits: int, seed: int, earlier: Sequence[ImageRecord] = ()
) -> tuple[list[ImageRecord], bool]:
    """Give whole scenes to "validation" until `fraction` of the images is reached (at least 1, and 1 left to train).

    A pure function of content ids, seed and `earlier`, the records of datasets before this one: their images keep
    their side and pass it on to new images of their scenes. Second result: False where one scene is all there is,
    so that it had to be cut through. Raises DataError where earlier sides leave nothing to train on or to hold back.
    """
    known = {record.id: record.split for record in earlier}
    present = {record.id for record in records}
    everything = [*records, *(record for record in earlier if record.id not in present)]
    groups = scenes([record.phash for record in everything], scene_bits)
    free = [group for group in groups if not any(everything[index].id in known for index in group)]
    whole = len(groups) > 1
    if not whole:
        free = [[index] for group in free for index in group]
    sides = _inherit(everything, groups, known)
    held = {index for index in range(len(records)) if sides.get(index) == "validation"}

    def draw(group: list[int]) -> str:
        return hashlib.sha256(f"{seed}:{min(records[index].id for index in group)}".encode()).hexdigest()

    wanted = max(1, round(fraction * len(records)))
    for group in sorted(free, key=draw):
        if len(held) + len(group) <= wanted:
            held.update(group)
    if not held and free:
        held.update(min(free, key=lambda group: (len(group), draw(group))))
    if not 0 < len(held) < len(records):
        what = "train on: all of them were held back from" if held else "hold back: all of them were trained on by"
        fix = "add images of other scenes, or start anew with --set retraining.keep_split=false"
        raise DataError(f"no {records[0].role} image is left to {what} the last model; {fix}")
    splits = ("validation" if index in held else "train" for index in range(len(records)))
    return [record.model_copy(update={"split": split}) for record, split in zip(records, splits, strict=True)], whole


def _inherit(records: Sequence[ImageRecord], groups: list[list[int]], known: dict[str, Split]) -> dict[int, Split]:
    """Sides of known images, and of those that share a scene with one: the nearest known image's."""
    words = as_words([record.phash for record in records])
    sides: dict[int, Split] = {}
    for group in groups:
        old = sorted((index for index in group if records[index].id in known), key=lambda index: records[index].id)
        if old:
            nearest_old = distances(words[group], words[old]).argmin(1)
            sides |= {index: known[records[old[at]].id] for index, at in zip(group, nearest_old, strict=True)}
            sides |= {index: known[records[index].id] for index in old}
    return sides
