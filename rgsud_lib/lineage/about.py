"""What the things of a lineage hold, in a few words each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rgsud_lib.bundle import Bundle
from rgsud_lib.evaluation.verdict import decimals, label
from rgsud_lib.lineage.memory import Version
from rgsud_lib.stages import ROLES

SHOWN = 16  # hexadecimal digits of a file's digest


def about(bundle: Bundle) -> tuple[str, ...]:
    """A stage's bundle; what it does not say of itself is left out."""
    facts, files = bundle.facts, bundle.files
    if bundle.kind == "dataset":
        return (*_file(files, "manifest.json", "manifest"), *_counts(facts))
    if bundle.kind in ("recycled", "reinforced"):
        return (*_file(files, "derainer.safetensors", "checkpoint"), *_pool(facts, files))
    if bundle.kind == "evaluation":
        return tuple(_gains(facts))
    if "weights_digest" in facts:
        return (f"weights {facts['weights_digest'][:SHOWN]}",)
    return ()


def about_version(version: Version) -> tuple[str, ...]:
    """A version of the registry: its aliases, what the gate said, who promoted it."""
    tags = version.tags
    lines = [", ".join(version.aliases)] if version.aliases else []
    if gate := tags.get("rgsud.gate"):
        against = tags.get("rgsud.gate_against", "none")
        lines.append(f"gate: {gate}" + ("" if against == "none" else f", against version {against}"))
    if by := tags.get("rgsud.promoted_by"):
        lines.append(f"promoted by {by} at {tags.get('rgsud.promoted_at', '?')}: {tags.get('rgsud.promoted_why', '?')}")
    return tuple(lines)


def origin(datasets: Iterable[Bundle]) -> tuple[str, ...]:
    """Where the image files lay that these datasets were read from."""
    read = [data.facts.get("sources", {}) for data in datasets]
    places = [f"{role}: {places[role]}" for places in read for role in ROLES if role in places]
    return tuple(dict.fromkeys(places)) or ("where they lay was not written down",)


def _file(files: dict[str, str], name: str, what: str) -> list[str]:
    return [f"{what} {files[name][:SHOWN]}"] if name in files else []


def _counts(facts: dict[str, Any]) -> list[str]:
    if "rainy_train" not in facts:
        return []
    trained = f"trained on {facts['rainy_train']} rainy, {facts['clean_train']} clean"
    held = f"held back {facts['rainy_validation']} rainy, {facts['clean_validation']} clean"
    return [trained, f"{held}; {facts['pairs']} pairs"]


def _pool(facts: dict[str, Any], files: dict[str, str]) -> list[str]:
    if "pool/filled" not in facts:
        return []
    pool = f"reward pool: {facts['pool/filled']:.0f} images, mean score {facts['pool/score_mean']:.3f}"
    return [pool, *_file(files, "pool/index.json", "pool index")]


def _gains(facts: dict[str, Any]) -> Iterable[str]:
    """From the rainy input to the last stage's output."""
    metrics = facts.get("metrics", {})
    for name, after in metrics.items():
        group, model, metric = name.split("/", 2)
        before = metrics.get(f"{group}/input/{metric}")
        if model == "reinforced" and before is not None and metric in ("psnr_rgb", "ssim_rgb", "niqe"):
            digits, where = decimals(metric), group.replace("_", " ")
            yield f"{where}: {label(metric)} {before:.{digits}f} -> {after:.{digits}f}"
