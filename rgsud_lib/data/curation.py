"""Which images a dataset keeps: duplicates dropped, leaks refused, scenes split. Pure functions of the records.

A scene is a set of images whose perceptual hashes are near; it never lies in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rgsud_lib.data.manifest import Duplicate, ImageRecord, Quarantined
from rgsud_lib.data.phash import near_pairs, scenes


def drop_duplicates(records: Sequence[ImageRecord], bits: int) -> tuple[list[ImageRecord], list[Duplicate]]:
    """Keep the largest of each set of near-duplicates (the first by name among equals)."""
    ranked = sorted(records, key=lambda record: (-record.height * record.width, record.name))
    near: dict[int, list[tuple[int, int]]] = {}
    hashes = [record.phash for record in ranked]
    for i, j, distance in near_pairs(hashes, hashes, bits):
        if j < i:
            near.setdefault(i, []).append((distance, j))
    kept: set[int] = set()
    duplicates = []
    for index, record in enumerate(ranked):
        better = [(distance, j) for distance, j in near.get(index, []) if j in kept]
        if better:
            distance, j = min(better)
            duplicates.append(Duplicate(name=record.name, role=record.role, kept=ranked[j].name, bits=distance))
        else:
            kept.add(index)
    by_name = sorted((ranked[index] for index in kept), key=lambda record: record.name)
    return by_name, sorted(duplicates, key=lambda duplicate: duplicate.name)


def refuse_leaks(
    clean: Sequence[ImageRecord], evaluation: Sequence[ImageRecord], bits: int
) -> tuple[list[ImageRecord], list[Quarantined]]:
    """Refuse clean training images whose scene occurs, rainy or clean, in the evaluation set."""
    nearest: dict[int, tuple[int, str]] = {}
    near = near_pairs([record.phash for record in clean], [record.phash for record in evaluation], bits)
    for i, j, distance in near:
        nearest[i] = min(nearest.get(i, (distance, evaluation[j].name)), (distance, evaluation[j].name))
    kept, refused = [], []
    for index, record in enumerate(clean):
        if index in nearest:
            distance, name = nearest[index]
            reason = f"leak: shows the scene of the evaluation image {name} ({distance} of 256 bits apart)"
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
