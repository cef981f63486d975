"""The data report: one page that works offline and shows what was taken, what was not, and why."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader
from PIL import Image

from rgsud_lib.data.manifest import ImageRecord, Manifest, read_image
from rgsud_lib.files import write_bytes

SHOWN = 36  # thumbnails a section: a page of a thousand pictures would tell less
ROWS = 500  # quarantined files listed one by one
THUMBNAIL = (224, 168)  # pixels, width and height at most
_EDGES = (0, 128, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
_SECTIONS = (
    ("Rainy, training", "rainy", "train"),
    ("Rainy, held back", "rainy", "validation"),
    ("Clean, training", "clean", "train"),
    ("Clean, held back", "clean", "validation"),
)
_Any = TypeVar("_Any")


def write_report(path: Path, manifest: Manifest, records: Sequence[ImageRecord]) -> None:
    """Write the page; `records` are all pictures stored beside it, also those that the manifest leaves out.

    It holds no path and no time: the same data give the same bytes. File names are hostile and escaped.
    """
    thumbnail = _thumbnails(path.parent)
    seen = manifest.transductive()
    page = Environment(loader=PackageLoader("rgsud_lib.data", "."), autoescape=True).get_template("report.html")
    text = page.render(
        manifest=manifest,
        transductive=sum(pair.rainy in seen for pair in manifest.pairs),
        sections=[_section(manifest, thumbnail, *section) for section in _SECTIONS],
        pairs=_pairs(manifest, thumbnail, seen),
        duplicates=_duplicates(manifest, thumbnail, records),
        quarantined=[(item, item.id and thumbnail(item.id)) for item in manifest.quarantined[:ROWS]],
        kinds=Counter(item.reason.partition(": ")[0] for item in manifest.quarantined).most_common(),
        sizes=_sizes(manifest),
    )
    write_bytes(path, text.encode())


def _section(manifest: Manifest, thumbnail: Any, title: str, role: Any, split: Any) -> dict[str, Any]:
    images = manifest.select(role, split)
    shown = [{"record": image, "picture": thumbnail(image.id)} for image in _spread(images)]
    return {"title": title, "count": len(images), "shown": shown}


def _pairs(manifest: Manifest, thumbnail: Any, seen: set[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": pair.name,
            "rainy": thumbnail(pair.rainy),
            "clean": thumbnail(pair.clean),
            "transductive": pair.rainy in seen,
        }
        for pair in _spread(manifest.pairs)
    ]


def _duplicates(manifest: Manifest, thumbnail: Any, records: Sequence[ImageRecord]) -> list[dict[str, Any]]:
    ids = {(record.role, record.name): record.id for record in records}
    return [
        {
            "item": item,
            "dropped": thumbnail(ids[item.role, item.name]),
            "kept": thumbnail(ids[item.role, item.kept]),
        }
        for item in _spread(manifest.duplicates)
    ]


def _sizes(manifest: Manifest) -> list[dict[str, Any]]:
    """Images by their shorter side in pixels: bins with counts and bar lengths in percent, empty ends cut off."""
    counts: dict[str, Counter[int]] = {}
    for role in ("rainy", "clean"):
        sides = (min(image.height, image.width) for image in manifest.select(role))
        counts[role] = Counter(max(edge for edge in _EDGES if edge <= side) for side in sides)
    used = counts["rainy"].keys() | counts["clean"].keys()
    highest = max((count for group in counts.values() for count in group.values()), default=1)
    bars = []
    for edge, following in zip(_EDGES, (*_EDGES[1:], None), strict=True):
        if used and min(used) <= edge <= max(used):
            label = f"{edge} to {following - 1}" if following else f"{edge} and more"
            numbers = {role: counts[role][edge] for role in counts}
            bars.append({"label": label, **numbers, "percent": {r: 100 * n / highest for r, n in numbers.items()}})
    return bars


def _spread(items: Sequence[_Any]) -> list[_Any]:
    """At most SHOWN of the items, evenly spread over all of them."""
    if len(items) <= SHOWN:
        return list(items)
    return [items[index * len(items) // SHOWN] for index in range(SHOWN)]


def _thumbnails(folder: Path) -> Any:
    """A function from an image's id to a small JPEG as a data URI."""

    @cache
    def thumbnail(id: str) -> str:
        picture = Image.fromarray(read_image(folder, id))
        picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=82)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    return thumbnail
