from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # two test processes on two cores would otherwise wait for each other


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images (RGSUD_TEST_DATA, else ../shared/data beside the repository)."""
    folder = Path(os.environ.get("RGSUD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "rain100L" / "rain").is_dir():
        pytest.skip(f"no real images at {folder}: set RGSUD_TEST_DATA")
    return folder
