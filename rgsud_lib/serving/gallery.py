"""The held-out images of a run's evaluation, for the page: nobody trained on them (pairs that were are marked)."""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import BundleError
from rgsud_lib.evaluation.verdict import GROUPS, decimals, label, shown_metrics
from rgsud_lib.inference.pictures import Picture, encode_picture
from rgsud_lib.storage.remote import newest, open_anywhere, pulled

THUMBNAIL = 360  # pixels of the longer side


class Gallery:
    """Pictures of a workdir's newest evaluation, with scores. Raises BundleError: none, or of another dataset."""

    def __init__(self, workdir: Path | str) -> None:
        place = newest("evaluation", workdir)
        evaluation = open_anywhere(place, "evaluation")
        self.data = Dataset.open(pulled(newest("dataset", workdir)))
        if self.data.digest != evaluation.inputs.get("dataset"):
            raise BundleError(f"{place} is of another dataset than the newest; run `rgsud evaluate` again")
        folder = pulled(place)
        self._summary = json.loads((folder / "metrics.json").read_text())
        clean = {pair.rainy: pair.clean for pair in self.data.manifest.pairs}
        with open(folder / "per_image.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        self.items = [item for group in GROUPS for item in self._of_group(group, rows, clean)]
        self._ids = {item[key] for item in self.items for key in ("id", "clean") if item[key]}
        self.thumbnail = lru_cache(256)(self._thumbnail)

    def _of_group(self, group: str, rows: list[dict[str, str]], clean: dict[str, str]) -> list[dict[str, Any]]:
        """One item an image: its ids, and the first metric before and after (PSNR of pairs, else the judge's)."""
        if not self._summary[group]:
            return []
        metric = shown_metrics(self._summary, group)[0]
        found: dict[str, dict[str, dict[str, str]]] = {}
        for row in rows:
            if row["group"] == group:
                found.setdefault(row["id"], {})[row["model"]] = row
        items = []
        for id, models in found.items():
            values = [models[model].get(metric, "") for model in ("input", self._summary["models"][-1])]
            note = " → ".join(f"{float(value):.{decimals(metric)}f}" for value in values if value)
            row = models["input"]
            seen = ", trained on" if row["transductive"] == "True" else ""
            items.append({"id": id, "name": row["name"], "clean": clean.get(id) if group == "pairs" else None,
                          "note": f"{label(metric)} {note}{seen}"})  # fmt: skip
        return items

    def __contains__(self, id: str) -> bool:
        return id in self._ids

    def picture(self, id: str) -> bytes:
        """The stored picture, PNG."""
        return encode_picture(Picture(self.data.image(id)), "stored.png")

    def _thumbnail(self, id: str) -> bytes:
        picture = Image.fromarray(self.data.image(id))
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()
