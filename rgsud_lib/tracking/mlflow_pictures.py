"""Pictures on MLflow's step slider: the file as it is, and a copy that the page shows.

MLflow's own `log_image` gives each file a random name, so that a picture that is sent again would be there twice,
and shrinks the copy to 256 pixels, in which no rain can be seen.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from rgsud_lib.files import link_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FOLDER = "images"
SHOWN = re.compile(r"(?P<key>.+)\+step\+(?P<step>\d+)\+timestamp\+.+compressed\.webp")  # how MLflow names the copy
TAG = "mlflow.loggedImages"
LARGEST, QUALITY = 1280, 85  # pixels of the copy's longer side, WebP


def log_picture(client: MlflowClient, run_id: str, path: Path, key: str, step: int, time: int) -> None:
    """Put a PNG file on the slider of `key`; `time` is in Unix milliseconds."""
    name = key.replace("/", "~") + f"+step+{step}+timestamp+{time}+0"
    with tempfile.TemporaryDirectory() as folder:
        whole, shown = Path(folder) / f"{name}.png", Path(folder) / f"{name}+compressed.webp"
        link_file(path, whole)
        with Image.open(path) as picture:
            copy = picture.convert("RGB")
        copy.thumbnail((LARGEST, LARGEST))
        copy.save(shown, "WEBP", quality=QUALITY)
        client.log_artifact(run_id, str(whole), FOLDER)
        client.log_artifact(run_id, str(shown), FOLDER)
    client.set_tag(run_id, TAG, "True")


def pictures(client: MlflowClient, run_id: str) -> set[tuple[str, int]]:
    """Keys and steps of the pictures that a run has."""
    found = (SHOWN.fullmatch(Path(file.path).name) for file in client.list_artifacts(run_id, FOLDER))
    return {(match["key"].replace("~", "/"), int(match["step"])) for match in found if match}
