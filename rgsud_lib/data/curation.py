"""Which images a dataset keeps: duplicates dropped, leaks refused, scenes split. Pure functions of the records.

A scene is a set of images whose perceptual hashes are near; it never lies in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rgsud_lib.data.manifest import Duplicate, ImageRecord, Quarantined
from rgsud_lib.data.phash import as_words, distances, nearest, scenes


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
    records: Sequence[ImageRecord], fraction: float, scene_bits: int, seed: int
) -> tuple[list[ImageRecord], bool]:
    """Give whole scenes to "validation" until `fraction` of the images is reached (at least 1, and 1 left to train).

    A pure function of content ids and seed. Second result: False where one scene is all there is, so
    that it had to be cut through.
    """
    groups = scenes([record.phash for record in records], scene_bits)
    whole = len(groups) > 1
    if not whole:
        groups = [[index] for index in range(len(records))]

    def draw(group: list[int]) -> str:
        return hashlib.sha256(f"{seed}:{min(records[index].id for index in group)}".encode()).hexdigest()

    wanted = max(1, round(fraction * len(records)))
    held: set[int] = set()
    for group in sorted(groups, key=draw):
        if len(held) + len(group) <= wanted:
            held.update(group)
    if not held:
        held.update(min(groups, key=lambda group: (len(group), draw(group))))
    splits = ("validation" if index in held else "train" for index in range(len(records)))
    return [record.model_copy(update={"split": split}) for record, split in zip(records, splits, strict=True)], whole
