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

from rgsud_lib.bundle import MARKER, open_bundle
from rgsud_lib.config import Config
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
        return _manifest(self.dataset)


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


def earlier_dataset(config: Config, sources: str, workdir: Path) -> LastModel | None:
    """The model whose split `prepare` keeps: the last one made from other files, where `retraining.keep_split` is on.

    One made from the same files is passed over, so that a run that is repeated finds its own results again.
    """
    if not config.retraining.keep_split:
        return None
    return next((model for model in last_models(workdir) if model.sources != sources), None)


def model_to_follow(config: Config, dataset: Path, workdir: Path) -> Path | None:
    """Stage 2 of the model that stage 1 starts from: the last one trained on another dataset; None: from the start.

    Raises BundleError where that model was trained on images which `dataset` holds back.
    """
    keep = config.retraining
    if not (keep.warm_start_from_champion or keep.reuse_pool):
        return None
    digest = open_bundle(dataset, "dataset").digest
    last = next((model for model in last_models(workdir) if model.dataset_digest != digest), None)
    if last is None:
        return None
    seen = {image.id for image in last.manifest().all_records() if image.split == "train"}
    held = {image.id for image in _manifest(dataset).images if image.split == "validation"}
    if both := seen & held:
        raise BundleError(
            f"{last.name} was trained on {len(both)} images that {dataset} holds back, such as {min(both)}; "
            "prepare the dataset with --set retraining.keep_split=true"
        )
    return last.reinforced


def _manifest(dataset: Path) -> Manifest:
    data = (dataset / MANIFEST).read_bytes()
    if hashlib.sha256(data).hexdigest() != _marker(dataset)["files"].get(MANIFEST):
        raise BundleError(
            f"{dataset / MANIFEST} was altered after it was written (SHA-256 differs from {MARKER}); "
            "delete the folder and run `rgsud prepare` again"
        )
    return Manifest.model_validate_json(data)


def _marker(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MARKER).read_text())
