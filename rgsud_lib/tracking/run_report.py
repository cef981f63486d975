"""What a pipeline run says about itself at its end: how it went, what it cost, what came from what.

One dictionary (run_report.json) that Markdown and metrics are drawn from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rgsud_lib.files import write_bytes

EARLIER, ABSENT = "EARLIER", "ABSENT"  # besides MLflow's: another pipeline run computed it; nobody did


@dataclass(frozen=True)
class StageRecord:
    """One stage of a pipeline run; `seconds` are what this pipeline run spent on it."""

    stage: str
    status: str = ABSENT
    seconds: float = 0.0
    device: str = ""
    gpus: int = 0
    run_id: str = ""
    bundle: str = ""  # digest of what it made
    inputs: dict[str, str] = field(default_factory=dict)  # digests of what it was made from
    decision: str = ""  # of a task that only decides


def run_status(state: str, stages: Iterable[StageRecord]) -> str:
    """MLflow's status for KFP's final `state`. A launcher only says FAILED where a stage was told to stop."""
    statuses = {record.status for record in stages}
    if state == "SUCCEEDED":
        return "FINISHED"
    stopped = "KILLED" in statuses and "FAILED" not in statuses
    return "KILLED" if stopped or state.startswith("CANCEL") else "FAILED"


def costs(stages: Iterable[StageRecord]) -> dict[str, float]:
    """Metrics: seconds by stage and in all, and seconds of GPUs, whether they were busy or not."""
    spent = [record for record in stages if record.run_id and record.status != EARLIER]
    metrics = {f"cost/{record.stage}_seconds": round(record.seconds, 1) for record in spent}
    on_gpu = sum(record.gpus * record.seconds for record in spent)
    total = sum(record.seconds for record in spent)
    return {**metrics, "cost/total_seconds": round(total, 1), "cost/gpu_seconds": round(on_gpu, 1)}


def report(status: str, run_key: str, message: str, stages: list[StageRecord], notes: list[str]) -> dict[str, Any]:
    """The run_report.json."""
    return {
        "status": status,
        "run_key": run_key,
        "message": message,
        "stages": [asdict(record) for record in stages],
        "cost": costs(stages),
        "notes": notes,
    }


def markdown(document: dict[str, Any]) -> str:
    """The report to look at."""
    rows = [
        f"| {row['stage']} | {row['status'].lower()} | {row['seconds']:.0f} | {row['device'] or '-'} "
        f"| {row['bundle'] or row['decision'] or '-'} | {row['run_id'] or '-'} |"
        for row in document["stages"]
    ]
    made = [
        f"- {row['stage']}: {', '.join(f'{kind} {digest}' for kind, digest in row['inputs'].items())} "
        f"-> {row['bundle']}"
        for row in document["stages"]
        if row["bundle"]
    ]
    cost = document["cost"]
    lines = [
        f"# Run {document['run_key']}: {document['status'].lower()}",
        *([f"```\n{document['message']}\n```"] if document["message"] else []),
        f"{cost['cost/total_seconds']:.0f} s in all, {cost['cost/gpu_seconds']:.0f} GPU seconds.",
        "| stage | status | seconds | device | result | MLflow run |\n|---|---|---|---|---|---|\n" + "\n".join(rows),
        "## What came from what\n\n" + ("\n".join(made) or "Nothing was made."),
        *(f"Note: {note}" for note in document["notes"]),
    ]
    return "\n\n".join(lines) + "\n"


def publish_report(document: dict[str, Any], page: Any, cost: Any) -> None:
    """Hand the report to KFP: `page` is a dsl.Markdown, `cost` a dsl.Metrics."""
    write_bytes(Path(page.path), markdown(document).encode())
    page.metadata["status"] = document["status"]
    for name, value in document["cost"].items():
        cost.log_metric(name.removeprefix("cost/"), value)
