"""What `rgsud derain` uses where no model is named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rgsud_lib import research_model
from rgsud_lib.errors import BundleError
from rgsud_lib.research_model import NAME, usual_model


def test_a_workdir_with_a_model_is_used(mini_run) -> None:
    assert usual_model(str(mini_run.reinforced)) == str(mini_run.reinforced)
    assert usual_model("s3://bucket/runs") == "s3://bucket/runs"


def test_without_one_the_repositorys_file_is_used_and_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(research_model, "FOLDER", tmp_path)
    with pytest.raises(BundleError, match="no model at .*nothing"):
        usual_model(str(tmp_path / "nothing"))
    (tmp_path / f"{NAME}.safetensors").touch()
    with caplog.at_level(logging.WARNING, "rgsud"):
        assert usual_model(str(tmp_path / "nothing")) == str(tmp_path / f"{NAME}.safetensors")
    assert "for research only" in caplog.text
