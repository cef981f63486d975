"""An empty MLflow store in a workdir, and no setting of the environment that would point elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.config import Config, load_config

VARIABLES = ("RGSUD_TRACKING", "RGSUD_RUN_KEY", "KFP_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "RGSUD_LAUNCHER_PID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def workdir(tmp_path: Path, mlflow_database: Path) -> Path:
    folder = tmp_path / "work dir"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    return folder


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config("demo", ["training.seed=7"])


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "grid.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    return path
