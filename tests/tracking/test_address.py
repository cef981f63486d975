"""No password of a tracking server or database is shown, in whatever words it comes."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from rgsud_lib import tracking
from rgsud_lib.config import load_config
from rgsud_lib.errors import RegistryError
from rgsud_lib.registry import Registry, explained
from rgsud_lib.tracking.address import first_line, shown


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql://u:secret@db/mlflow", "postgresql://db/mlflow"),
        ("postgresql+psycopg2://u:se/c?r#e:t@db:5432/mlflow", "postgresql+psycopg2://db:5432/mlflow"),
        ("https://token@mlflow.example:5000/base", "https://mlflow.example:5000/base"),
        ("https://u:p@ss@host/x", "https://host/x"),
        ("postgresql://db/mlflow?user=u&password=secret&x=1", "postgresql://db/mlflow?user=u&password=***&x=1"),
        ("no answer (url: 'http://u:secret@a/x', then http://v:secret@b)", "no answer (url: 'http://a/x', then http://b)"),
        ("http://host:5000/who@where", "http://host:5000/who@where"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("models:/rgsud@champion", "models:/rgsud@champion"),
    ],
)  # fmt: skip
def test_what_is_shown(address: str, expected: str) -> None:
    assert shown(address) == shown(shown(address)) == expected


def secretive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("RGSUD_TRACKING", raising=False)


def test_a_registry_that_fails_keeps_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    secretive(monkeypatch)
    with pytest.raises(RegistryError, match="registry at http://127.0.0.1:9 failed") as failure:
        Registry.open(tmp_path)
    assert "secret" not in str(failure.value)
    with pytest.raises(RegistryError) as failure, explained("postgresql://u:secret@db/m"):
        raise OSError("cannot connect to postgresql://u:secret@db/m")
    assert str(failure.value).endswith("at postgresql://db/m failed: cannot connect to postgresql://db/m")


def test_an_open_registry_names_itself_without_password_and_downloads_with_it(tmp_path: Path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    asked: list[str] = []

    def download(uri: str, dst_path: str, tracking_uri: str, registry_uri: str) -> str:
        asked.extend((tracking_uri, registry_uri))
        (Path(dst_path) / "file").touch()
        return f"{dst_path}/file"

    class Version:
        version, source, run_id, tags = "1", "mlflow-artifacts:/1", "run", {}

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", download)
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path))
    registry = Registry(mlflow.tracking.MlflowClient("http://u:secret@db"), "0")
    registry.fetch(Version())  # type: ignore[arg-type]
    assert registry.address == "http://db" and asked == ["http://u:secret@db"] * 2


def test_warnings_of_a_stage_keep_the_password(tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    secretive(monkeypatch)
    monkeypatch.setattr(logging.getLogger("rgsud"), "propagate", True)
    with tracking.stage_run("prepare", load_config("demo"), tmp_path, "k"):
        pass
    assert "MLflow cannot be written" in caplog.text and "secret" not in caplog.text
    assert first_line(sqlite3.Error("")) == "Error: no message"
