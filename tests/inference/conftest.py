from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rgsud_lib.config import DerainerConfig
from rgsud_lib.inference import save_derainer
from rgsud_lib.networks import build_derainer

SMALL = DerainerConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1))


@pytest.fixture()
def derainer() -> nn.Module:
    torch.manual_seed(0)
    model = build_derainer(SMALL)
    for parameter in model.parameters():  # away from the identity start, so that every weight matters
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture()
def model_file(derainer: nn.Module, tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    save_derainer(derainer, SMALL, tmp_path / "model" / "derainer.safetensors")
    return tmp_path / "model"
