"""What every result under benchmarks/results/ says of itself: command, date, commit, device, versions."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def write_record(path: Path, results: dict[str, Any]) -> None:
    """Write `results` with their provenance as JSON."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    git = ["git", "describe", "--always", "--dirty"]
    provenance = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "device": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(provenance | results, indent=1) + "\n")
