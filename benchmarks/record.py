"""A benchmark's result as a file under benchmarks/results/, with what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rgsud_lib.provenance import provenance


def write_record(path: Path, results: dict[str, Any]) -> None:
    """Write `results` with their provenance as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(provenance() | results, indent=1) + "\n")
