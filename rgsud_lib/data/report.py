"""The data report."""
from __future__ import annotations
from pathlib import Path
from collections.abc import Sequence
from rgsud_lib.data.manifest import ImageRecord, Manifest
def write_report(path: Path, folder: Path, manifest: Manifest, records: Sequence[ImageRecord]) -> None:
    path.write_text("<!doctype html><title>data</title>")
