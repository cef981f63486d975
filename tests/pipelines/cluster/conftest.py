from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from typer.testing import CliRunner, Result

from .kfp_stub import Stub, serve

PINNED = "registry.example/team/rgsud@sha256:" + "0123456789abcdef" * 4
SOURCES = ("--rainy", "s3://photos/rain", "--clean", "s3://photos/clean", "--workdir", "s3://photos/rgsud")
LOGIN = ("KFP_HOST", "KFP_NAMESPACE", "KFP_TOKEN_FILE", "KFP_CA_FILE", "KFP_COOKIE", "KF_PIPELINES_SA_TOKEN_PATH")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A single-user Kubeflow Pipelines server that wants no login, and an environment that names none."""
    for name in LOGIN:
        monkeypatch.delenv(name, raising=False)
    with serve(Stub()) as server:
        yield server


@lru_cache
def compiled(pipeline: str, placement: str) -> tuple[str, str]:
    """Name and text of a compiled pipeline with a pinned image; components read RGSUD_IMAGE once, when imported."""
    from rgsud_components._image import image
    from rgsud_pipelines.compile import compile_one

    with TemporaryDirectory() as folder:
        path = compile_one(pipeline, placement, Path(folder))
        return path.name, path.read_text().replace(image(), PINNED)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile once, with a pinned image."""
    from rgsud_pipelines.cluster import package

    def compile_pinned(pipeline: str, placement: str, folder: Path) -> Path:
        name, text = compiled(pipeline, placement)
        (folder / name).write_text(text)
        return folder / name

    monkeypatch.setattr(package, "compile_one", compile_pinned)


@pytest.fixture
def rgsud(stub: Stub, pinned: None) -> Callable[..., Result]:
    """`rgsud pipeline COMMAND ...` on the stub."""
    from rgsud_pipelines.cli import app

    def call(command: str, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["pipeline", command, *arguments, "--host", stub.url])

    return call
