"""The model registry: versions of the registered model `rgsud`, made from export bundles, and their aliases.

Works alike with a workdir's embedded database and with a tracking server. `promotion_log` moves the aliases.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib.errors import RegistryError
from rgsud_lib.registry.download import fetch_weights
from rgsud_lib.tracking.address import shown
from rgsud_lib.tracking.mlflow_models import MODEL_ID

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

NAME = "rgsud"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
EXPORT_DIGEST, WEIGHTS_DIGEST = "rgsud.export_digest", "rgsud.weights_digest"
COST = "rgsud.cost"  # tag: what the model and all that went into it took, `cost.spent` as JSON
ABOUT = (
    "Unpaired image derainers. `champion` serves, `challenger` is the newest candidate, `previous` was replaced by it. "
    "Who promoted what, and why: the versions of `rgsud-promotions`."
)


def unavailable() -> str:
    """Why there is no registry here, nothing where there is one."""
    if os.environ.get("RGSUD_TRACKING", "").lower() == "off":
        return "tracking is off (RGSUD_TRACKING=off), so there is no model registry"
    return "" if importlib.util.find_spec("mlflow") else "mlflow is not installed, so there is no model registry"


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn what MLflow raises into a RegistryError, which is without passwords."""
    from rgsud_lib.tracking import mlflow_store

    try:
        yield
    except mlflow_store.failures() as error:
        first = next(iter(shown(str(error)).strip().splitlines()), type(error).__name__)
        raise RegistryError(f"the model registry at {shown(address)} failed: {first[:300]}") from error


class Registry:
    """The registered model `rgsud` in one tracking store. All methods raise RegistryError where the store fails."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self.client = client
        self.experiment = experiment

    @classmethod
    def open(cls, workdir: Path | str) -> Registry:
        """The registry at MLFLOW_TRACKING_URI, else in the workdir's database. RegistryError where there is none."""
        if reason := unavailable():
            raise RegistryError(f"{reason}; set MLFLOW_TRACKING_URI or give the --workdir of a tracked run")
        from rgsud_lib.tracking import mlflow_store

        with explained(mlflow_store.tracking_uri(workdir)):
            client = mlflow_store.connect(workdir)
            return cls(client, mlflow_store.find_experiment(client, workdir))

    @property
    def address(self) -> str:
        """To be shown: without user and password."""
        return shown(str(self.client.tracking_uri))

    def versions(self, name: str = NAME) -> list[ModelVersion]:
        """All versions of a registered model, newest first; none where it does not exist."""
        with explained(self.address):
            found: list[ModelVersion] = []
            token: str | None = None
            while token != "":
                page = self.client.search_model_versions(f"name = '{name}'", page_token=token)
                found += page
                token = page.token or ""
            return sorted(found, key=lambda version: int(version.version), reverse=True)

    def aliases(self) -> dict[str, str]:
        """{"champion": "3", ...} in one read."""
        from mlflow.exceptions import MlflowException

        with explained(self.address):
            try:
                return {name: str(version) for name, version in self.client.get_registered_model(NAME).aliases.items()}
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}

    def find(self, which: str) -> ModelVersion:
        """A version by number or alias. Raises RegistryError: there is none."""
        aliases, versions = self.aliases(), self.versions()
        number = aliases.get(which, which)
        for version in versions:
            if str(version.version) == number:
                return version
        known = [*aliases, *(str(version.version) for version in versions)]
        raise RegistryError(
            f"{NAME} has no version {which!r} at {self.address}; "
            + (f"there are {', '.join(known)}" if known else "nothing was registered there yet: `rgsud run` does")
        )

    def registered(self, export_digest: str) -> ModelVersion | None:
        """The version made from that export bundle."""
        same = [version for version in self.versions() if version.tags.get(EXPORT_DIGEST) == export_digest]
        return same[-1] if same else None

    def register(self, export_digest: str, model_id: str, tags: dict[str, str], about: str) -> ModelVersion:
        """The version of an export bundle, made from its LoggedModel unless it is there; it becomes the challenger.

        A version that is champion already keeps that alias alone.
        """
        version = self.registered(export_digest) or self._create(export_digest, model_id, tags, about)
        if self.aliases().get(CHAMPION) != str(version.version):
            with explained(self.address):
                self.client.set_registered_model_alias(NAME, CHALLENGER, str(version.version))
        return version

    def _create(self, export_digest: str, model_id: str, tags: dict[str, str], about: str) -> ModelVersion:
        self.ensure(NAME, ABOUT)
        with explained(self.address):
            model = self.client.get_logged_model(model_id)
            created = self.client.create_model_version(
                NAME,
                model.artifact_location,
                run_id=model.source_run_id,
                tags=tags | {EXPORT_DIGEST: export_digest},
                description=about,
                model_id=model_id,
            )
        first = self.registered(export_digest) or created
        with explained(self.address):
            if first.version != created.version:  # another process was registering the same bundle
                self.client.delete_model_version(NAME, created.version)
            elif "mlflow.modelVersions" not in model.tags:  # a server does this itself, an embedded store does not
                link = f'[{{"name": "{NAME}", "version": {created.version}}}]'
                self.client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
        return first

    def ensure(self, name: str, description: str) -> None:
        """Create a registered model unless it is there."""
        from mlflow.exceptions import MlflowException

        with explained(self.address):
            try:
                self.client.create_registered_model(name, description=description)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def set_tags(self, version: str, tags: dict[str, str]) -> None:
        with explained(self.address):
            for name, value in tags.items():
                self.client.set_model_version_tag(NAME, version, name, value)

    def describe(self, version: str, about: str) -> None:
        """The description of a version (Markdown)."""
        with explained(self.address):
            self.client.update_model_version(NAME, version, about)

    def run(self, run_id: str) -> Run:
        with explained(self.address):
            return self.client.get_run(run_id)

    def fetch(self, version: ModelVersion) -> Path:
        """A version's safetensors file: in place where the artifacts are on this machine, else from the node's cache.

        Raises RegistryError: the version has none, or it cannot be read.
        """
        digest = version.tags.get(WEIGHTS_DIGEST) or str(version.run_id)
        with explained(self.address):
            return fetch_weights(self.client, str(version.source), f"models:/{NAME}/{version.version}", digest)

    def fetch_of_run(self, run_id: str) -> Path:
        """`fetch` of the model that a pipeline run, or its export, logged. Raises RegistryError: there is none."""
        with explained(self.address):
            run = self.client.get_run(run_id)
            children = f"tags.`mlflow.parentRunId` = '{run_id}'"
            runs = [run, *self.client.search_runs([run.info.experiment_id], children)]
            logged = next((run.data.tags[MODEL_ID] for run in runs if MODEL_ID in run.data.tags), None)
            if logged is None:
                raise RegistryError(f"run {run_id} at {self.address} has no model; name one that got to its export")
            location = str(self.client.get_logged_model(logged).artifact_location)
            return fetch_weights(self.client, location, location, logged)


def model_file(address: str, workdir: Path | str) -> Path:
    """`models:/rgsud@champion`, `models:/rgsud/3` or `runs:/ID` to a local safetensors file. Raises RegistryError."""
    scheme, _, path = address.partition(":/")
    name, _, which = path.replace("@", "/", 1).partition("/")
    if scheme == "runs" and name and not which:
        return Registry.open(workdir).fetch_of_run(name)
    if scheme != "models" or name != NAME or not which:
        raise RegistryError(f"{address!r}: expected models:/{NAME}@{CHAMPION}, models:/{NAME}/3 or runs:/ID")
    registry = Registry.open(workdir)
    return registry.fetch(registry.find(which))
