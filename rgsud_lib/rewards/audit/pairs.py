"""The images of an audit: the user's pairs, or rain drawn on clean images; and what scorers are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from rgsud_lib.data.degradations import DEGRADATIONS
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.data.manifest import ImageRecord, Pair, content_id, image_path, read_image
from rgsud_lib.data.prepare import usable_pairs
from rgsud_lib.data.reading import read_sources
from rgsud_lib.data.sources import Sources, list_images, match_pairs
from rgsud_lib.errors import DataError
from rgsud_lib.files import write_png
from rgsud_lib.rewards.audit.state import Audit

RAIN_SEED = 20_260_102  # neither the demo's nor the warm start's
DRAWN = 50  # at most, where pairs are made from clean images


def read_pairs(audit: Audit, pairs: str | None, clean: str | None) -> None:
    """Read, check and store the pairs, or draw rain on at most 50 of the clean images, evenly spread.

    Raises DataError: no images, names that do not match, sizes that differ, nothing usable.
    """
    warnings = audit.warnings
    matched = match_pairs(pairs, list_images(pairs, "paired", warnings)) if pairs else []
    clean_files = list_images(clean, "clean", warnings) if clean else []
    sources = Sources([], clean_files, matched, warnings)
    records, broken = read_sources(audit.config.data, sources, audit.cache)
    warnings += [f"not used: {item.role} {item.name}: {item.reason}" for item in broken]
    if pairs:
        audit.pairs = usable_pairs(sources, records, broken)
    else:
        audit.pairs = [_draw_pair(audit, record) for record in _spread(records["clean"], DRAWN)]
        warnings.append(
            f"The rain is drawn, on {len(audit.pairs)} of {len(clean_files)} clean images: a scorer may do better or "
            "worse on real rain, and a warm start was trained on rain like it."
        )
    if not audit.pairs:
        raise DataError(f"none of the {len(clean_files)} images of {clean} is usable ({broken[0].reason})")
    own = {pair.clean for pair in audit.pairs}
    audit.clean = records["clean"] or [record for record in records["paired_clean"] if record.id in own]
    if shared := len(own & {record.id for record in audit.clean}):
        warnings.append(
            f"Scorers with a model of clean images (such as niqe) were fitted on {shared} of the {len(own)} clean "
            "images they are audited on, which may flatter them; give clean photographs of other scenes"
            f"{' with --clean' if pairs else ' and pairs with --pairs'}."
        )


def _spread(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    chosen = np.unique(np.linspace(0, len(records) - 1, min(len(records), count)).round().astype(int))
    return [records[index] for index in chosen]


def _draw_pair(audit: Audit, record: ImageRecord) -> Pair:
    """The same rain on the same image each time, wherever it stands in its folder."""
    clean = to_tensor(read_image(audit.cache, record.id))
    draw = DEGRADATIONS[audit.config.degradation.name].draw
    rainy = to_uint8(draw(clean, (RAIN_SEED, int(record.id, 16))))[0]
    id = content_id(rainy)
    write_png(image_path(audit.cache, id), rainy)
    return Pair(rainy=id, clean=record.id, name=str(PurePosixPath(record.name).with_suffix("")))
