"""The model that a checkout of the repository may bring along: `rgsud derain` uses it where nothing was trained yet."""

from __future__ import annotations

import logging
from pathlib import Path

from rgsud_lib.errors import BundleError
from rgsud_lib.inference import find_model

FOLDER = Path(__file__).parents[1] / "benchmarks" / "weights"
NAME = "rgsud-rain100l"
log = logging.getLogger("rgsud")


def usual_model(workdir: str) -> str:
    """The workdir where it (or its export/) holds a model, else the repository's file, which is for research only.

    Raises BundleError where neither is there.
    """
    if "://" in workdir:
        return workdir
    try:
        find_model(Path(workdir))
    except BundleError:
        file = FOLDER / f"{NAME}.safetensors"
        if not file.is_file():
            raise
        log.warning("no model in %s: %s is used, which is for research only (%s.md says why)", workdir, file, NAME)
        return str(file)
    return workdir
