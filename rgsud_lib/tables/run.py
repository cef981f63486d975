"""`rgsud bench table`: prepare the sets, run every row with every seed, print and record what came out.

Stopped, the same command goes on: all that is long are stages in the workdir.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from rgsud_lib import stages, tracking
from rgsud_lib.config import Config, digest_of, load_config
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import ConfigError, Preempted, RgsudError
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.provenance import provenance
from rgsud_lib.tables.arms import Job, Outcome, run_job
from rgsud_lib.tables.definitions import Table, find_table
from rgsud_lib.tables.report import markdown, picture_strips, write_page
from rgsud_lib.tables.results import comparisons, lines
from rgsud_lib.tables.sources import find_sets
from rgsud_lib.task import log_to_stderr


@dataclass(frozen=True)
class Request:
    """What was asked for. `rows`, `arms`: some of the table's, `sets`: in place of the paper's; empty: all."""

    table: str
    data: Path
    workdir: Path
    preset: str = "cpu"
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1)
    jobs: int = 1
    rows: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    clean: Path | None = None


def make_table(request: Request) -> tuple[str, Path]:
    """Run what is missing; returns the table as Markdown, and its page, beside which lie `.md` and `.json`.

    Raises ConfigError: unknown table or row; DataError: none of its sets is there; Preempted on SIGTERM.
    """
    began = time.time()
    config = load_config(request.preset, list(request.settings))
    table, notes = _available(_chosen(find_table(request.table), request.rows, request.arms), request)
    sets, absent = find_sets(request.data, request.sets or table.sets, request.clean)
    notes += [f"Not there: {', '.join(absent)} (`rgsud data describe NAME` tells the layout)."] if absent else []
    datasets = {
        each.name: Path(stages.prepare(config, each.rainy, each.clean, each.paired, request.workdir)) for each in sets
    }
    jobs = [
        Job(name, row, seed, request.preset, request.settings, dataset, request.workdir)
        for seed in request.seeds
        for name, dataset in datasets.items()
        for row in table.rows
    ]
    outcomes = _ordered(_run(jobs, request.jobs), table, list(datasets))
    notes += [note for name, dataset in datasets.items() for note in _transductive(name, dataset)]
    facts = {**provenance(), "preset": request.preset, "settings": " ".join(request.settings) or "the preset's"}
    facts["seconds of this call"] = round(time.time() - began)
    page = _write(request, table, config, jobs, outcomes, notes, facts)
    return "\n".join([markdown(lines(table.name, outcomes), comparisons(table, outcomes)), *notes]), page


def _chosen(table: Table, rows: tuple[str, ...], arms: tuple[str, ...]) -> Table:
    """Those rows and arms of the table; an arm brings those along that say how long it takes."""
    known = {"row": [row.name for row in table.rows], "arm": [arm.name for row in table.rows for arm in row.arms]}
    for kind, names in (("row", rows), ("arm", arms)):
        if unknown := sorted(set(names) - set(known[kind])):
            there = ", ".join(dict.fromkeys(known[kind]))
            raise ConfigError(f"table {table.name} has no {kind} {', '.join(unknown)}; it has {there}")
    chosen = (row for row in table.rows if not rows or row.name in rows)
    return replace(table, rows=tuple(replace(row, arms=row.needed(arms)) for row in chosen))


def _available(table: Table, request: Request) -> tuple[Table, list[str]]:
    """The table without arms whose scorer has no weights here, and a note on each."""
    from rgsud_lib.rewards import require_weights

    faults: dict[str, RgsudError] = {}
    for arm in (arm for row in table.rows for arm in row.arms):
        config = load_config(request.preset, [*request.settings, *arm.settings])
        try:
            require_weights(config.reward.scorer, config)
        except RgsudError as error:
            faults[arm.name] = error
    rows = tuple(replace(row, arms=tuple(arm for arm in row.arms if arm.name not in faults)) for row in table.rows)
    return replace(table, rows=rows), [f"Left out: {name} ({error})." for name, error in faults.items()]


def _run(jobs: list[Job], at_once: int) -> list[Outcome]:
    if at_once == 1:
        return [outcome for job in jobs for outcome in run_job(job)]
    # A process a job: one that was stopped takes no other.
    pool = ProcessPoolExecutor(
        at_once, mp_context=get_context("spawn"), initializer=log_to_stderr, max_tasks_per_child=1
    )
    with pool, _stop_together(pool):
        return [outcome for found in pool.map(run_job, jobs) for outcome in found]


@contextmanager
def _stop_together(pool: ProcessPoolExecutor) -> Iterator[None]:
    """On SIGTERM and Ctrl-C the trainings save, and none is begun any more."""

    def stop(signum: int, frame: FrameType | None) -> None:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in psutil.Process().children(recursive=True):
            child.send_signal(signal.SIGTERM)
        raise Preempted("stopped; the same command goes on from here")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ordered(outcomes: list[Outcome], table: Table, sets: list[str]) -> list[Outcome]:
    """By set and row as the table has them, seeds together."""
    rows = [row.name for row in table.rows]
    return sorted(outcomes, key=lambda outcome: (sets.index(outcome.set), rows.index(outcome.row)))


def _transductive(name: str, dataset: Path) -> list[str]:
    manifest = Dataset.open(dataset).manifest
    seen = manifest.transductive()
    count, total = sum(pair.rainy in seen for pair in manifest.pairs), len(manifest.pairs)
    return [f"{name}: {count} of the {total} rainy inputs were trained on, without their clean originals."][
        : bool(count)
    ]


def _write(
    request: Request, table: Table, config: Config, jobs: list[Job], outcomes: list[Outcome],
    notes: list[str], facts: dict[str, Any],
) -> Path:  # fmt: skip
    found, compared = lines(table.name, outcomes), comparisons(table, outcomes)
    strips = []
    for job in (job for job in jobs if job.seed == request.seeds[0]):
        own = [each for each in outcomes if (each.set, each.row, each.seed) == (job.set, job.row.name, job.seed)]
        strips += picture_strips(job.config(), job.dataset, own)
    page = request.workdir / "tables" / f"{table.name}.html"
    write_page(page, table, found, compared, strips, notes, facts)
    write_bytes(page.with_suffix(".md"), markdown(found, compared).encode())
    record = {**facts, "notes": notes, "config": config.model_dump(mode="json")}
    record["outcomes"] = [asdict(each) for each in outcomes]
    write_json(page.with_suffix(".json"), record)
    key = digest_of({"table": table.name, "outcomes": record["outcomes"]})
    with tracking.stage_run(f"table {table.name}", config, request.workdir, key) as run:
        for file in (page, page.with_suffix(".md"), page.with_suffix(".json")):
            run.log_artifact(file)
        run.log_metrics({f"{'/'.join(line.place)}/psnr_rgb": line.means["psnr_rgb"] for line in found})
    return page
