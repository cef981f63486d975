"""What MLflow remembers: which run made a bundle, of what and where, and which versions were made from it.

Folders and S3 do without; this finds bundles of other workdirs, and says what those that are gone were made from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rgsud_lib.bundle import Bundle
from rgsud_lib.errors import BundleError, RegistryError
from rgsud_lib.lineage import Name, Place
from rgsud_lib.registry import EXPORT_DIGEST
from rgsud_lib.stages import INPUTS, STAGES
from rgsud_lib.storage.remote import local_root
from rgsud_lib.tracking.mlflow_models import BUNDLE_DIGEST, BUNDLE_PATH

if TYPE_CHECKING:
    from mlflow.entities import Run

    from rgsud_lib.registry import Registry


@dataclass(frozen=True)
class Version:
    """A version of the registry, with its aliases."""

    number: str
    aliases: list[str]
    tags: dict[str, str]

    @property
    def export(self) -> Name:
        return "export", self.tags.get(EXPORT_DIGEST, "")

    @property
    def inputs(self) -> dict[str, str]:
        """What its export was made from, as its tags say."""
        named = ((kind, self.tags.get(f"rgsud.{kind}_digest")) for kind in INPUTS["export"])
        return {kind: digest for kind, digest in named if digest}


@dataclass(frozen=True)
class Memory:
    """A tracking store and its registry. Its methods raise RegistryError where the store fails."""

    registry: Registry

    @classmethod
    def open(cls, workdir: Place) -> Memory:
        """At MLFLOW_TRACKING_URI, else in the workdir's database. Raises RegistryError: there is none."""
        from rgsud_lib.registry import Registry, unavailable

        if reason := unavailable():
            raise RegistryError(reason)
        if not os.environ.get("MLFLOW_TRACKING_URI") and not (local_root(workdir) / "mlflow.db").exists():
            raise RegistryError(f"{workdir} has no mlflow.db, and MLFLOW_TRACKING_URI is not set")
        return cls(Registry.open(workdir))

    def versions(self) -> list[Version]:
        """The registry's versions, newest first."""
        aliases: dict[str, list[str]] = {}
        for alias, number in sorted(self.registry.aliases().items()):
            aliases.setdefault(number, []).append(alias)
        found = self.registry.versions()
        return [Version(str(one.version), aliases.get(str(one.version), []), one.tags) for one in found]

    def bundle(self, name: Name) -> Bundle | None:
        """A bundle as the run that made it describes it (no files, no facts), None where no run does."""
        query = f"tags.`{BUNDLE_DIGEST}` = '{name[1]}'"
        with self._explained():
            runs = self.registry.client.search_runs([self.registry.experiment], query, max_results=20)
        return next((bundle for run in runs if (bundle := _bundle(run)) and (bundle.kind, bundle.digest) == name), None)

    def made_by(self, run_id: str) -> Name:
        """What a stage's run made, or the last that a pipeline's run has. Raises BundleError: it made nothing."""
        from rgsud_lib.tracking import mlflow_store

        with self._explained():
            run = self.registry.client.get_run(run_id)
            children = self.registry.client.search_runs(
                [run.info.experiment_id], f"tags.`{mlflow_store.PARENT}` = '{run_id}'"
            )
        if own := _bundle(run):
            return own.kind, own.digest
        made = {child.kind: child.digest for child in map(_bundle, children) if child}
        made |= {
            kind: digest
            for stage, (kind, _) in STAGES.items()
            if (digest := run.data.tags.get(f"rgsud.{stage}_bundle"))  # of stages that an earlier run had finished
        }
        for kind, _ in reversed(STAGES.values()):
            if kind in made:
                return kind, made[kind]
        raise BundleError(f"MLflow run {run_id} ({run.info.status.lower()}) made no bundle; give a finished one")

    def _explained(self):  # noqa: ANN202 (a context manager of the registry's)
        from rgsud_lib.registry import explained

        return explained(self.registry.address)


def _bundle(run: Run) -> Bundle | None:
    from rgsud_lib.tracking import mlflow_store

    tags = run.data.tags
    stage = STAGES.get(tags.get(mlflow_store.STAGE, ""))
    if stage is None or BUNDLE_DIGEST not in tags:
        return None
    inputs = {read.dataset.name: read.dataset.digest for read in run.inputs.dataset_inputs}
    return Bundle(tags.get(BUNDLE_PATH, ""), stage[0], tags[BUNDLE_DIGEST], "", inputs)
