"""The InferenceService of a registered version: which bytes are served, by which image, and nothing that can change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rgsud_lib.config import ServingConfig
from rgsud_lib.errors import RegistryError
from rgsud_lib.registry import WEIGHTS_DIGEST

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

FETCHED = ("s3://", "gs://", "https://")  # what KServe's storage initializer reads
SPARE = 10  # seconds of the grace period that remain after the service's own


def inference_service(version: ModelVersion, image: str) -> str:
    """YAML for `kubectl apply`: `version`'s files from where the registry has them, served by `image` (name@digest).

    Raises RegistryError: the files lie where no cluster finds them, or the version does not say which weights it has.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    source, digest = str(version.source), version.tags.get(WEIGHTS_DIGEST)
    if not source.startswith(FETCHED):
        wanted = f"expected one of {', '.join(FETCHED)}: train with an MLflow server whose artifacts are in S3"
        raise RegistryError(f"version {version.version} lies in {source}, which KServe cannot fetch; {wanted}")
    if not digest:
        raise RegistryError(f"version {version.version} has no tag {WEIGHTS_DIGEST}; export and register it again")
    settings = ServingConfig()
    grace = round(settings.notice_seconds + settings.drain_seconds) + SPARE
    environment = Environment(  # noqa: S701 (YAML; every value is quoted by tojson)
        loader=PackageLoader("rgsud_lib.serving", "."), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("inference-service.yaml.jinja").render(
        version=str(version.version), image=image, source=source, weights_digest=digest, grace=grace
    )
