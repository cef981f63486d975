"""Which model a retraining follows: the registry's champion where there is one, else the workdir's newest export.

A bundle's marker says which dataset and weights an export came from; their bundles lie in the same workdir, be it
a folder or an `s3://` address. What a finished run of the same images started from is taken again, whatever was
exported or promoted since.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib.bundle import MARKER, Bundle
from rgsud_lib.config import Config
from rgsud_lib.data.manifest import MANIFEST, Manifest
from rgsud_lib.errors import BundleError
from rgsud_lib.lineage import newest_first
from rgsud_lib.stages import STAGES
from rgsud_lib.storage import transfer
from rgsud_lib.storage.remote import local_root, open_anywhere
from rgsud_lib.storage.s3 import is_remote

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

Place = Path | str  # a folder or an s3:// address


@dataclass(frozen=True)
class LastModel:
    """A finished model: its dataset's and stage 2's bundles, and when (Unix time) it was exported."""

    name: str
    dataset: Bundle
    reinforced: Bundle
    export_digest: str
    exported: float

    def manifest(self) -> Manifest:
        """What it was trained on. Raises BundleError where the manifest is not as it was sealed."""
        return _manifest(self.dataset)


def last_models(workdir: Place) -> list[LastModel]:
    """The workdir's exported models whose bundles are still there: the champion, then the others, newest first.

    Raises BundleError where the champion was made in another workdir, RegistryError where the registry fails.
    """
    models, champion = list(_exported(workdir)), _champion(workdir)
    if champion is None:
        return models
    from rgsud_lib.registry import EXPORT_DIGEST, NAME

    name, digest = f"champion, {NAME} version {champion.version}", champion.tags.get(EXPORT_DIGEST)
    first = next((replace(model, name=name) for model in models if model.export_digest == digest), None)
    if first is None:
        raise BundleError(
            f"the {name} comes from export {digest}, which is not in {workdir} or has lost its dataset or stage 2; "
            "give the --workdir where it was trained"
        )
    return [first, *(model for model in models if model.export_digest != digest)]


def earlier_dataset(config: Config, sources: str, workdir: Place) -> LastModel | None:
    """The model whose split `prepare` keeps: the last one made from other files, where `retraining.keep_split` is on.

    Where a finished dataset of these files kept one's split already, it is that one, so that a run that is repeated
    finds its own results again.
    """
    if not config.retraining.keep_split:
        return None
    models = last_models(workdir)
    made = [
        bundle.inputs for bundle in _finished("prepare", config, workdir) if bundle.inputs.get("sources") == sources
    ]
    kept = next((inputs["earlier"] for inputs in made if "earlier" in inputs), None)
    again = next((model for model in models if model.dataset.digest == kept), None)
    return again or next((model for model in models if model.dataset.inputs.get("sources") != sources), None)


def last_to_follow(config: Config, dataset_digest: str, workdir: Place) -> LastModel | None:
    """The model that stage 1 on a dataset starts from: the last one trained on another; None: from the start.

    A finished stage 1 on that dataset, of the same settings, says what it was, as in `earlier_dataset`.
    """
    if not _follows(config):
        return None
    models = last_models(workdir)
    made = [bundle.inputs for bundle in _finished("recycle", config, workdir)]
    for inputs in (inputs for inputs in made if inputs.get("dataset") == dataset_digest):
        again = next((model for model in models if model.reinforced.digest == inputs.get("reinforced")), None)
        if again or "reinforced" not in inputs:
            return again
    return next((model for model in models if model.dataset.digest != dataset_digest), None)


def model_to_follow(config: Config, dataset: Place, workdir: Place) -> Place | None:
    """Stage 2 of `last_to_follow`, None where there is no such model.

    Raises BundleError where that model was trained on images which `dataset` holds back.
    """
    if not _follows(config):
        return None
    data = open_anywhere(dataset, "dataset")
    last = last_to_follow(config, data.digest, workdir)
    if last is None:
        return None
    seen = {image.id for image in last.manifest().all_records() if image.split == "train"}
    held = {image.id for image in _manifest(data).images if image.split == "validation"}
    if both := seen & held:
        raise BundleError(
            f"{last.name} was trained on {len(both)} images that {dataset} holds back, such as {min(both)}; "
            "prepare the dataset with --set retraining.keep_split=true"
        )
    return last.reinforced.path


def _follows(config: Config) -> bool:
    return config.retraining.warm_start_from_champion or config.retraining.reuse_pool


def _finished(stage: str, config: Config, workdir: Place) -> list[Bundle]:
    """The workdir's bundles of a stage with these settings, newest first."""
    kind, sections = STAGES[stage]
    digest = config.digest(*sections)
    return [bundle for _, bundle in newest_first(workdir) if (bundle.kind, bundle.config_digest) == (kind, digest)]


def _exported(workdir: Place) -> Iterator[LastModel]:
    found = newest_first(workdir)
    by_digest = {(bundle.kind, bundle.digest): bundle for _, bundle in found}
    for exported, bundle in found:
        parts = [by_digest.get((kind, bundle.inputs.get(kind, ""))) for kind in ("dataset", "reinforced")]
        if bundle.kind == "export" and all(parts):
            yield LastModel(Path(bundle.path).name, *parts, bundle.digest, exported)


def _champion(workdir: Place) -> ModelVersion | None:
    from rgsud_lib.registry import CHAMPION, Registry, unavailable

    embedded = not os.environ.get("MLFLOW_TRACKING_URI")
    if unavailable() or (embedded and not (local_root(workdir) / "mlflow.db").exists()):
        return None
    registry = Registry.open(workdir)
    return registry.find(CHAMPION) if CHAMPION in registry.aliases() else None


def _manifest(bundle: Bundle) -> Manifest:
    """A dataset's manifest; nothing else of it is fetched."""
    path = f"{bundle.path}/{bundle.digest}/{MANIFEST}" if is_remote(bundle.path) else f"{bundle.path}/{MANIFEST}"
    data = transfer.read(path) if is_remote(path) else Path(path).read_bytes()
    if data is None or hashlib.sha256(data).hexdigest() != bundle.files.get(MANIFEST):
        raise BundleError(
            f"{path} is gone or was altered after it was written (SHA-256 differs from {MARKER}); "
            "delete its folder and run `rgsud prepare` again"
        )
    return Manifest.model_validate_json(data)
