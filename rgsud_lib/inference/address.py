"""Where a model is: every way to name one, to a file or folder of this machine."""

from __future__ import annotations

import logging
from pathlib import Path

from rgsud_lib.errors import BundleError
from rgsud_lib.inference.model_file import find_model

RUNS = "rgsud-runs"  # the workdir where none is named
RESEARCH = Path(__file__).parents[2] / "benchmarks" / "weights"  # of a checkout
logger = logging.getLogger("rgsud")


def local_model(model: str | Path | None, workdir: str | Path = RUNS) -> Path:
    """What `find_model` finds a model in, for `models:/rgsud@champion`, `runs:/ID`, `s3://...`, or a path.

    None means the workdir's, or else a checkout's research weights. The first two are looked up in the tracking store
    at MLFLOW_TRACKING_URI, or else in the workdir's. Raises BundleError or RegistryError: there is no such model.
    """
    from rgsud_lib.storage.remote import model_path

    if model is None:
        return _default(workdir)
    if str(model).startswith(("models:/", "runs:/")):
        from rgsud_lib.registry import model_file

        return model_file(str(model), workdir)
    return model_path(model)


def _default(workdir: str | Path) -> Path:
    from rgsud_lib.storage.remote import model_path

    research = sorted(RESEARCH.glob("*.safetensors"))
    try:
        return find_model(model_path(workdir))
    except BundleError:
        if not research:
            raise
    logger.warning("no model in %s: using %s, for research only", workdir, research[-1])
    return research[-1]
