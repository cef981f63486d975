"""What a stage can tell the tracking server; the base class is the null run, which tells nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class StageRun:
    """The stage's MLflow run; `StageRun()` is the null run, whose methods do nothing.

    None of them raises; only `flush` and `close` wait.
    """

    run_id: str | None = None  # in MLflow, as soon as it is known
    tracked = False  # whether what is logged goes anywhere, now or later

    def log_rows(self, rows: list[dict[str, Any]]) -> None:
        """Curves: each row has an int "step"; its other numbers are logged under their names.

        A metric's values at or before its last step in MLflow are skipped, so a resumed stage may send its
        whole log again.
        """

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """The stage's final numbers, shown by its run and by the pipeline's."""

    def log_image(self, path: Path, key: str, step: int) -> None:
        """A PNG file on the step slider of `key`; the same key and step are kept once."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy the file (or folder) `path` to the run's artifacts."""

    def log_model(self, folder: Path) -> None:
        """Make the MLflow model in `folder` a LoggedModel of the run; its id becomes the tag `rgsud.model_id`."""

    def log_input(self, name: str, digest: str, source: str, context: str) -> None:
        """Record what the stage read; the digest of the input named "dataset" also becomes a tag."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """Tags of the stage's run."""

    def flush(self) -> None:
        """Wait until MLflow has all that was logged, or has failed to take it."""

    def close(self, status: str) -> None:
        """The end: status is one of MLflow's. Waits as `flush` does."""
