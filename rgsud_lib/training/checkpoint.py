"""Checkpoints that are whole or absent: the state file first, then `latest.json` that names and digests it.

`latest.json` also says how many updates the stage had done, so that of two checkpoints one knows the later.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from rgsud_lib.errors import BundleError
from rgsud_lib.files import CHECKPOINT, sha256_file, write_bytes, write_json

MARKER = "latest.json"


def save_checkpoint(stage_folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) and only then forget the one before."""
    folder = stage_folder / CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = folder / f"{state['phase']}-{state['step']:08d}.pt"
    write_bytes(path, buffer.getvalue())
    write_json(folder / MARKER, {"file": path.name, "sha256": sha256_file(path), "updates": state["ema_updates"]})
    for other in folder.iterdir():
        if other.name not in (path.name, MARKER):
            other.unlink()


def load_checkpoint(stage_folder: Path) -> dict[str, Any] | None:
    """The last complete state, on the CPU; None where there is none yet.

    Raises BundleError where the file is missing or its bytes changed.
    """
    folder = stage_folder / CHECKPOINT
    if not (folder / MARKER).is_file():
        return None
    marker = json.loads((folder / MARKER).read_text())
    path = folder / marker["file"]
    if not path.is_file() or sha256_file(path) != marker["sha256"]:
        raise BundleError(
            f"checkpoint {path} is missing or was altered after it was written (SHA-256 differs from {MARKER}); "
            f"delete {folder} to train this stage from its start"
        )
    return torch.load(path, map_location="cpu", weights_only=True)
