"""Sends what earlier processes could not: spools that they left in a workdir."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rgsud_lib.storage.remote import local_root
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.tracking.address import first_line
from rgsud_lib.tracking.facts import server
from rgsud_lib.tracking.remote_spools import fetch, send_away
from rgsud_lib.tracking.spool import FOLDER, Record, Spool, left_behind


@dataclass
class Replayed:
    """Names of the spools that were sent, and why others were not."""

    sent: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def replay_all(workdir: Path | str, anywhere: bool = False) -> Replayed:
    """`replay`, and what pods left in the workdir's S3. Raises DataError: that refuses or cannot be reached."""
    fetch(workdir)
    result = replay(workdir, anywhere)
    for name in result.left if is_remote(workdir) else ():  # this machine may be a pod too
        send_away(local_root(workdir) / FOLDER / name, workdir)
    return result


def replay(workdir: Path | str, anywhere: bool = False) -> Replayed:
    """Send all spools on this machine that no process is at work on, the oldest first, until MLflow fails.

    `anywhere`: also those that were meant for another server than the present one and never reached it.
    """
    from rgsud_lib.tracking import mlflow_store

    result, failed = Replayed(), False
    for folder in left_behind(local_root(workdir)):
        spool = Spool.claim(folder)
        if spool is None:
            continue
        reason = "stopped on the way"
        try:
            reason = "not tried, for the same reason" if failed else _send(spool, workdir, anywhere)
        except mlflow_store.failures() as error:
            reason, failed = first_line(error), True
        finally:
            spool.release(delivered=not reason)
        if reason:
            result.left[folder.name] = reason
        else:
            result.sent.append(folder.name)
    return result


def _send(spool: Spool, workdir: Path | str, anywhere: bool) -> str:
    """Send a spool; returns why it was not sent, or nothing."""
    from rgsud_lib.tracking.delivery import Delivery, ForeignSpool

    meant = _end_story(spool)
    if meant != server() and not anywhere:
        return f"it was meant for {meant or 'the database of the workdir'}"
    try:
        Delivery(spool, workdir).deliver()
    except ForeignSpool as error:
        return str(error)
    return ""


def _end_story(spool: Spool) -> str:
    """Add an end where a process had none to tell: killed, at its last record. Returns the server's address."""
    first: Record | None = None
    last: Record | None = None
    for record in spool.all():
        first, last = first or record, record
    if last is not None and last.op not in ("close", "finalize"):
        spool.append("close", status="KILLED", time=last.time)
    return first.fields["opening"]["address"] if first else server()
