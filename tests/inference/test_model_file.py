"""Model files: bit for bit back, and every damage refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from rgsud_lib.config import DerainerConfig
from rgsud_lib.errors import BundleError
from rgsud_lib.inference import load_derainer, save_derainer, weights_digest

SMALL = DerainerConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1))  # of the fixture `derainer`


def test_saved_model_comes_back_bit_for_bit(derainer: nn.Module, tmp_path: Path) -> None:
    save_derainer(derainer, SMALL, tmp_path / "derainer.safetensors", {"dataset": "abc"})
    for path in (tmp_path / "derainer.safetensors", tmp_path):
        loaded = load_derainer(path)
        assert not loaded.training
        assert weights_digest(loaded.state_dict()) == weights_digest(derainer.state_dict())
        image = torch.rand(1, 3, 37, 41)
        assert torch.equal(loaded(image), derainer(image))
    with safe_open(tmp_path / "derainer.safetensors", framework="pt") as file:
        metadata = json.loads(file.metadata()["rgsud"])
    assert metadata["dataset"] == "abc"
    assert json.loads(metadata["derainer"]) == SMALL.model_dump(mode="json")
    assert [path.name for path in tmp_path.iterdir()] == ["derainer.safetensors"]


def test_work_folder_means_its_exported_model(derainer: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    save_derainer(derainer, SMALL, tmp_path / "export" / "rgsud-derainer.safetensors")
    assert load_derainer(tmp_path).training is False
    save_derainer(derainer, SMALL, tmp_path / "export" / "other.safetensors")
    with pytest.raises(BundleError, match="several models .*other.safetensors, rgsud-derainer.safetensors"):
        load_derainer(tmp_path)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model at .*nowhere"):
        load_derainer(tmp_path / "nowhere")


def test_flipped_byte_in_the_weights(derainer: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    save_derainer(derainer, SMALL, path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="was altered after it was written"):
        load_derainer(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"\xff" * 50, b"{}" * 30])
def test_not_a_safetensors_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        load_derainer(path)


def test_truncated_file(derainer: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    save_derainer(derainer, SMALL, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        load_derainer(path)


def test_another_architecture_or_a_foreign_file(derainer: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    save_derainer(derainer, DerainerConfig(width=12, encoder=(1, 1), middle=1, decoder=(1, 1)), path)
    with pytest.raises(BundleError, match="weights do not fit the architecture"):
        load_derainer(path)
    weights = load_file(path)
    metadata = {"format": "rgsud-derainer-1", "derainer": '{"name": "resnet"}'}
    metadata["weights_digest"] = weights_digest(weights)
    save_file(weights, path, {"rgsud": json.dumps(metadata)})
    with pytest.raises(BundleError, match="weights do not fit the architecture"):
        load_derainer(path)
    save_file(weights, path)
    with pytest.raises(BundleError, match="format None, expected 'rgsud-derainer-1'"):
        load_derainer(path)
