"""A progress bar with ETA on a terminal, one line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

log = logging.getLogger("rgsud")


class Progress:
    """Context manager around a phase of `total` steps, `done` of which are behind it."""

    def __init__(self, title: str, total: int, done: int = 0, seconds_between_lines: float = 30.0):
        self.title, self.total, self.done, self.interval = title, total, done, seconds_between_lines
        self._bar: Any = None
        self._started = self._last_line = time.monotonic()
        self._first = done

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True)).__enter__()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)

    def advance(self, note: str = "") -> None:
        """One step more; `note` is shown beside it."""
        self.done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= self.interval or self.done == self.total:
            self._last_line = now
            remaining = (now - self._started) / max(1, self.done - self._first) * (self.total - self.done)
            log.info(
                "%s: step %d of %d, %.0f s to go%s",
                self.title,
                self.done,
                self.total,
                remaining,
                f", {note}" if note else "",
            )
