"""Is this copy of a published set what papers mean by its name? Counts, pairs, sizes, damage, leaks.

Scenes are compared by perceptual hash: a leak is found whatever its coding and size, under all but the heaviest rain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rgsud_lib.config import DataConfig
from rgsud_lib.data.phash import nearest, scenes
from rgsud_lib.data.published import PublishedSet
from rgsud_lib.data.published_copy import Look, Part, look_at, open_copy
from rgsud_lib.data.sources import list_images

SHOWN = 3  # examples in a message
STRANGE = 0.2  # share of pairs that heavy rain alone does not make unlike (5 % in Rain100H)


@dataclass(frozen=True)
class Finding:
    """What one check found; unless `ok`, the message says what to do."""

    status: Literal["ok", "warn", "fail"]
    check: str
    message: str


def check_copy(
    published: PublishedSet, location: str, train: Sequence[str] = (), config: DataConfig | None = None
) -> list[Finding]:
    """Check a copy (folder or s3:// prefix), also against other folders that are trained on (`train`).

    Every file is read. Raises DataError: no copy there, or not laid out as `published.layout()`.
    """
    config = config or DataConfig()
    parts = open_copy(published, location)
    present = {part.split.folder for part in parts}
    findings = [
        Finding("warn", split.folder, f"not in this copy (published: {split.count()})")
        for split in published.splits
        if split.folder not in present
    ]
    for part in parts:
        part.read(config)
        findings += [*_names(published, part), _count(part), *_damage(part)]
        findings += [*_sizes(published, part), *_content(config, part), *_scenes(config, part)]
    others = {folder: look_at(config, list_images(folder, "train", []), f"reading {folder}") for folder in train}
    return findings + _leaks(config, parts, others)


def _names(published: PublishedSet, part: Part) -> list[Finding]:
    check = f"{part.split.folder} pairs"
    if part.unmatched:
        return [Finding("fail", check, f"{part.unmatched}; naming: {published.naming}")]
    return [Finding("ok", check, "names match")] if part.split.paired else []


def _count(part: Part) -> Finding:
    split, check = part.split, f"{part.split.folder} count"
    found = f"{part.count()} {'pairs' if split.paired else 'images'}"
    if split.images is None:
        return Finding("ok", check, f"{found}; no published count is known")
    if split.images == part.count():
        return Finding("ok", check, f"{found}, as published")
    fix = "numbers do not compare with published ones; complete it, or say which part of the set it is"
    return Finding("fail" if split.sure else "warn", check, f"{found}, published: {split.count()}; {fix}")


def _damage(part: Part) -> list[Finding]:
    broken = [f"{look.name} ({look.fault})" for look in part.looks.values() if look.fault]
    fix = "fetch them again"
    return [Finding("fail", f"{part.split.folder} files", f"unreadable: {_some(broken)}; {fix}")] if broken else []


def _sizes(published: PublishedSet, part: Part) -> list[Finding]:
    """Both images of a pair are of one size, and all are of the published sizes, either way round."""
    check = f"{part.split.folder} sizes"
    unlike = [
        f"{name} ({_by(rain.size)} rainy, {_by(clean.size)} clean)"
        for name, rain, clean in part.seen_pairs()
        if rain.size != clean.size
    ]
    findings = [Finding("fail", check, f"pairs of unequal size: {_some(unlike)}; align them")] if unlike else []
    known = {tuple(sorted(size)) for size in published.sizes}
    looks = [look for look in part.looks.values() if not look.fault]
    other = [f"{look.name} ({_by(look.size)})" for look in looks if tuple(sorted(look.size)) not in known]
    if known and other:
        sizes = " or ".join(_by(size) for size in published.sizes)
        fix = "resized or cropped copies do not compare with published numbers"
        findings.append(Finding("fail", check, f"published: {sizes}; others: {_some(other)}; {fix}"))
    fine = "as published" if known else "equal within pairs" if part.pairs else "any"
    return findings or [Finding("ok", check, fine)]


def _content(config: DataConfig, part: Part) -> list[Finding]:
    """Do rainy images look like their clean ones? A warning only, as heavy rain hides some scenes."""
    pairs = list(part.seen_pairs())
    strange = [name for name, rain, clean in pairs if nearest([rain.phash], [clean.phash])[1][0] > config.leak_bits]
    if len(strange) <= STRANGE * len(pairs):
        return []
    what = f"{len(strange)} of {len(pairs)} rainy images do not look like their clean ones: {_some(strange)}"
    return [Finding("warn", f"{part.split.folder} content", f"{what}; look whether names were shuffled")]


def _scenes(config: DataConfig, part: Part) -> list[Finding]:
    """How many scenes does a held-out part show? That many images a mean over it is worth."""
    if part.trains or not (looks := part.scene()):
        return []
    groups = scenes([look.phash for look in looks], config.leak_bits)
    recur = "" if len(groups) == len(looks) else ": some recur, so a mean is over fewer independent images"
    return [Finding("ok", f"{part.split.folder} scenes", f"{len(looks)} images show {len(groups)} scenes{recur}")]


def _leaks(config: DataConfig, parts: list[Part], others: dict[str, list[Look]]) -> list[Finding]:
    """Held-out parts against the copy's training parts and against other folders."""
    learnt = [(part.split.folder, part.scene()) for part in parts if part.trains]
    learnt += [(folder, [look for look in looks if not look.fault]) for folder, looks in others.items()]
    held_out = [(part.split.folder, part.scene()) for part in parts if not part.trains]
    return [
        _leak(config, source, looks, name, held)
        for name, held in held_out
        for source, looks in learnt
        if held and looks
    ]


def _leak(config: DataConfig, source: str, looks: list[Look], held_out: str, held: list[Look]) -> Finding:
    best, apart = nearest([look.phash for look in looks], [look.phash for look in held])
    hits = [
        f"{look.name} shows {held[index].name}"
        for look, index, bits in zip(looks, best.tolist(), apart.tolist(), strict=True)
        if bits <= config.leak_bits
    ]
    check = f"{source} against {held_out}"
    if not hits:
        return Finding("ok", check, f"no scene of {held_out} in {len(looks)} images")
    fix = "leave them out of training (`rgsud prepare` does so with --paired, the held-out pairs)"
    return Finding(
        "fail", check, f"{len(hits)} of {len(looks)} images show a scene of {held_out}: {_some(hits)}; {fix}"
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
