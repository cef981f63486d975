"""What a stage logs: `log.jsonl` (deterministic, part of the result) and the tracking server's copy with times.

A row is one step's averages since the row before. The file is cut back to the checkpoint on resume,
so it never holds a step twice; nor does the server, which is sent all of it then, and takes each step once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rgsud_lib.tracking import StageRun

FILE = "log.jsonl"


class Curves:
    """Sums values between rows, which go to the file and to the tracking run."""

    def __init__(self, folder: Path, run: StageRun):
        self.path, self.run = folder / FILE, run
        self.sums: dict[str, list[float]] = {}

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            total = self.sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1

    def row(self, step: int, phase: str, values: dict[str, float], times: dict[str, float]) -> None:
        """Write a row of the averages since the last one and `values`; `times` go to the tracking server only."""
        averages = {name: total / count for name, (total, count) in sorted(self.sums.items())}
        self.sums.clear()
        row = {"step": step, "phase": phase, **averages, **values}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        self.run.log_rows([row | times])

    def state(self) -> dict[str, Any]:
        return {"bytes": self.path.stat().st_size if self.path.exists() else 0, "sums": self.sums}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Cut the file back to the checkpoint (None: to nothing) and send its rows again; known ones are skipped."""
        if not self.path.exists():
            self.path.touch()
        with open(self.path, "r+b") as file:
            file.truncate(state["bytes"] if state else 0)
        self.sums = state["sums"] if state else {}
        self.run.log_rows(read_log(self.path))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a `log.jsonl`."""
    return [json.loads(line) for line in path.read_text().splitlines()]
