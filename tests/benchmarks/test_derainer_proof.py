"""The proof of every derainer, at a few steps of the smallest size and for one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.integration
def test_a_derainer_trains_survives_a_kill_and_exports(photographs: Path, tmp_path: Path) -> None:
    script, out = Path(__file__).parents[2] / "benchmarks" / "derainer_proof.py", tmp_path / "proof.json"
    command = [sys.executable, str(script), "--data", str(photographs), "--size", "mini", "--derainers", "prenet"]
    subprocess.run([*command, "--steps", "60", "--out", str(out)], check=True, env=os.environ)
    found = json.loads(out.read_text())["derainers"]["prenet"]
    assert found["same_bytes"] and found["loss"]["finite"] and found["killed_after"] >= 30
    assert found["loss"]["last"] < found["loss"]["first"] and found["onnx_difference"] < 1e-3
