"""Which commit this code is of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit() -> str:
    """RGSUD_COMMIT, which the image has, else what git says of this checkout; "unknown" where there is neither."""
    if given := os.environ.get("RGSUD_COMMIT"):
        return given
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    git = subprocess.run(command, capture_output=True, text=True, check=False)
    return git.stdout.strip() or "unknown"
