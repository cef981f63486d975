"""The file that the repository keeps: half precision, with a card, loadable as any other model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rgsud_lib.errors import BundleError
from rgsud_lib.inference import load_derainer

TRAINED = {"arms": {"doing nothing": {"psnr_rgb": 20.5}}, "device": "some GPU"}


def test_half_the_bytes_nearly_the_same_weights_and_a_card(scripts, mini_run, tmp_path: Path) -> None:
    from agenda_weights import NAME, write_weights

    model = mini_run.reinforced / "derainer.safetensors"
    facts = write_weights(mini_run.config, mini_run.dataset, model, TRAINED, tmp_path)
    file = tmp_path / f"{NAME}.safetensors"
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    rainy = torch.rand(1, 3, 40, 30)
    with torch.no_grad():
        torch.testing.assert_close(load_derainer(file)(rainy), load_derainer(model)(rainy), atol=2e-3, rtol=0)
    card = (tmp_path / f"{NAME}.md").read_text()
    assert "For research only" in card and "20.50 dB" in card and f"{facts['psnr_rgb']:.2f} dB" in card
    assert facts["pairs"] == 3 and facts["seen"] == 1


def test_a_file_that_is_too_large_is_refused(scripts, mini_run, tmp_path: Path, monkeypatch) -> None:
    import agenda_weights

    monkeypatch.setattr(agenda_weights, "LARGEST", 1000)
    with pytest.raises(BundleError, match="more than 1000; train a smaller derainer"):
        agenda_weights.write_weights(mini_run.config, mini_run.dataset, mini_run.reinforced, TRAINED, tmp_path)
