"""Which model a retraining follows: the registry's champion where there is one, else the workdir's newest export.

A bundle's marker says which dataset and weights an export came from; their bundles lie in the same workdir.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rgsud_lib.bundle import MARKER
from rgsud_lib.data.manifest import MANIFEST, Manifest
from rgsud_lib.errors import BundleError


@dataclass(frozen=True)
class LastModel:
    """A finished model: where its dataset's and stage 2's bundles lie, and when (Unix time) it was exported.

    `sources` identifies the files that the dataset was made from.
    """

    name: str
    dataset: Path
    dataset_digest: str
    sources: str
    reinforced: Path
    reinforced_digest: str
    exported: float

    def manifest(self) -> Manifest:
        """What it was trained on. Raises BundleError where the manifest is not as it was sealed."""
        data = (self.dataset / MANIFEST).read_bytes()
        if hashlib.sha256(data).hexdigest() != _marker(self.dataset)["files"].get(MANIFEST):
            raise BundleError(
                f"{self.dataset / MANIFEST} was altered after it was written (SHA-256 differs from {MARKER}); "
                "delete the folder and run `rgsud prepare` again"
            )
        return Manifest.model_validate_json(data)


def last_models(workdir: Path) -> Iterator[LastModel]:
    """The workdir's exported models whose bundles are still there, newest first."""
    markers = Path(workdir).glob(f"stages/*/{MARKER}")
    folders = [marker.parent for marker in sorted(markers, key=lambda path: path.stat().st_mtime, reverse=True)]
    bundles = {folder: _marker(folder) for folder in folders}
    by_digest = {(document["kind"], document["digest"]): folder for folder, document in bundles.items()}
    for folder, document in bundles.items():
        inputs, name = document["inputs"], f"newest export, {folder.name}"
        dataset = by_digest.get(("dataset", inputs.get("dataset")))
        reinforced = by_digest.get(("reinforced", inputs.get("reinforced")))
        if document["kind"] == "export" and dataset and reinforced:
            sources, exported = bundles[dataset]["inputs"].get("sources", ""), (folder / MARKER).stat().st_mtime
            yield LastModel(name, dataset, inputs["dataset"], sources, reinforced, inputs["reinforced"], exported)


def _marker(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MARKER).read_text())
