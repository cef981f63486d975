"""What a recorded measurement says of itself: command, date, commit, device, versions."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Command, date, commit of the checkout (outside of one: RGSUD_COMMIT, else "unknown"), device and versions."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    program = ["python", sys.argv[0]] if sys.argv[0].endswith(".py") else [Path(sys.argv[0]).name]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": shlex.join([*program, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or os.environ.get("RGSUD_COMMIT", "unknown"),
        "device": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
