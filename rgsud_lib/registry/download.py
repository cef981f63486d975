"""The safetensors file beside a logged model, wherever the tracking store keeps its artifacts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from rgsud_lib.errors import RegistryError
from rgsud_lib.storage.remote import cache_folder

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

WEIGHTS = "rgsud-derainer.safetensors"  # in every logged model


def fetch_weights(client: MlflowClient, location: str, uri: str, name: str) -> Path:
    """The file at an artifact location: in place, or downloaded from `uri` once and kept in the cache by `name`.

    Raises RegistryError: it is not there; and whatever MLflow raises where it cannot be read.
    """
    source = urlparse(location)
    if source.scheme in ("", "file"):
        file = Path(unquote(source.path)) / WEIGHTS
        if not file.is_file():
            raise RegistryError(f"{uri} has no file {file}; export and register it again")
        return file
    cache = cache_folder() / "models"
    file = cache / f"{name}.safetensors"
    if not file.is_file():
        from mlflow.artifacts import download_artifacts

        cache.mkdir(parents=True, exist_ok=True)
        store = client.tracking_uri
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            got = download_artifacts(f"{uri}/{WEIGHTS}", dst_path=folder, tracking_uri=store, registry_uri=store)
            os.replace(got, file)
    return file
