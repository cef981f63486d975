"""The model card (Markdown): what a model is, how well it does and on what, its limits, how to load it.

Written by the export, before any gate: what is known later takes the place of a section, see `with_section`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rgsud_lib.bundle import Bundle
from rgsud_lib.config import Config
from rgsud_lib.data.manifest import Manifest
from rgsud_lib.errors import BundleError
from rgsud_lib.evaluation.verdict import GROUPS, decimals, label, shown_metrics, transductive_note
from rgsud_lib.scorer_names import licences

CARD, STRIP = "model_card.md", "strip.png"
GATE = "Promotion gate"  # the section that the gate writes anew
SECTION = "\n## "


@dataclass(frozen=True)
class Made:
    """What a card is about: the configuration, the dataset, the evaluation's metrics.json, and the export's facts.

    `facts` have the digests, the commit, and what the exported files were compared with.
    """

    config: Config
    dataset: Bundle
    manifest: Manifest
    summary: Mapping[str, Any]
    facts: Mapping[str, Any]
    has_strip: bool
    compared_sizes: tuple[tuple[int, int, int], ...]


def model_card(made: Made) -> str:
    """The card; a value that is missing is an error, none is left empty."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("rgsud_lib", ".")
    environment = Environment(  # noqa: S701 (Markdown; nothing in it comes from a file's name or content)
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    config, summary = made.config, made.summary
    return environment.get_template("model_card.md.jinja").render(
        made=made,
        config=config,
        facts=made.facts,
        summary=summary,
        groups=[group for group in GROUPS if summary[group]],
        transductive=transductive_note(dict(summary)),
        counts=_counts(made.manifest),
        sizes=_sizes(made.manifest),
        licences=licences(config.reward.scorer, config.evaluation.judge, *config.gate_judges),
        label=label,
        shown_metrics=shown_metrics,
        decimals=decimals,
        strip=STRIP,
        gate=GATE,
    )


def with_section(card: str, title: str, text: str) -> str:
    """The card with another text in a section. Raises BundleError: it has no such section."""
    head, *sections = card.split(SECTION)
    if not any(section.startswith(f"{title}\n") for section in sections):
        raise BundleError(f"the model card has no section {title!r}; export the model again")
    sections = [f"{title}\n\n{text}\n" if section.startswith(f"{title}\n") else section for section in sections]
    return SECTION.join([head, *sections])


def shortened(card: str, length: int, note: str, last: tuple[str, ...] = ()) -> str:
    """Whole sections of a card, as many as fit into `length` characters, and then `note`; `last` are left out first."""
    if len(card) <= length:
        return card
    head, *sections = card.split(SECTION)
    expendable = [section for title in last for section in sections if section.startswith(f"{title}\n")]
    expendable += [section for section in reversed(sections) if section not in expendable]
    for section in expendable:
        sections.remove(section)
        if len(short := SECTION.join([head, *sections]).rstrip() + note) <= length:
            return short
    return head[: length - len(note)] + note


def _counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """How many rainy and clean images each use has."""
    return {
        role: {
            "train": len(manifest.select(role, "train")),
            "validation": len(manifest.select(role, "validation")),
            "test": len(manifest.select(f"paired_{role}")),
        }
        for role in ("rainy", "clean")
    }


def _sizes(manifest: Manifest) -> str:
    """The smallest and the largest rainy training image, width x height in pixels."""
    sizes = sorted({(image.width, image.height) for image in manifest.select("rainy", "train")}, key=_area)
    return " to ".join(f"{width}×{height}" for width, height in dict.fromkeys((sizes[0], sizes[-1])))


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
