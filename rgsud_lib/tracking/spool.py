"""What a stage logs, on disk and in order, until MLflow has it: a folder for each attempt of a stage.

`records.jsonl` has a line a record, `files/` what records carry (hard links where the file system can), and
`position.json` how far MLflow got and which runs it opened. So the end of a process loses nothing, at any moment.
Who holds the lock delivers; nobody but the process that made the folder adds to it. Without mlflow.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from rgsud_lib.errors import RgsudError
from rgsud_lib.files import link_file, link_tree, write_json

FOLDER = "mlflow-spool"  # in a workdir, or in this machine's folder for one in S3
RECORDS, FILES, POSITION, LOCK = "records.jsonl", "files", "position.json", "lock"
LIMIT = 8 << 30  # bytes of files that one attempt keeps for a server that is away
LINES = 500  # records read at once
logger = logging.getLogger("rgsud")


class SpoolFull(RgsudError):
    """Files for a server that is away exceed LIMIT, or the disk."""


@dataclass(frozen=True)
class Record:
    """One thing to tell MLflow: what (`op`), when (Unix milliseconds), and the offset at which the next one begins."""

    op: str
    time: int
    end: int
    fields: dict[str, Any] = field(default_factory=dict)


class Spool:
    """An attempt's records, held by this process. Appending is safe from several threads."""

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder, self._lock, self._append = folder, lock, threading.Lock()
        path = folder / POSITION
        known = json.loads(path.read_text()) if path.exists() else {}
        self.offset: int = known.get("offset", 0)
        self.runs: dict[str, Any] | None = known.get("runs")  # what was opened in MLflow

    @classmethod
    def create(cls, root: Path, name: str) -> Spool:
        """A new one under `root`; the names sort by time. Raises SpoolFull."""
        folder = root / f"{time.time_ns():020d}-{name}-{uuid.uuid4().hex[:8]}"
        try:
            (folder / FILES).mkdir(parents=True)
            lock = _locked(folder)
            assert lock is not None, "a folder with a name of its own"
            (folder / RECORDS).touch()
        except OSError as error:
            raise SpoolFull(f"{folder} cannot be written ({error}); free some space") from error
        return cls(folder, lock)

    @classmethod
    def claim(cls, folder: Path) -> Spool | None:
        """What another process left behind; None where one is still at it, or all was delivered meanwhile."""
        lock = _locked(folder)
        if lock is not None and (folder / RECORDS).exists():
            _end_line(folder / RECORDS)
            return cls(folder, lock)
        if lock is not None:
            lock.close()
        return None

    def append(self, op: str, file: Path | None = None, **fields: Any) -> None:
        """Add a record; `file` (or folder) is kept with it as it is now. Raises SpoolFull, nothing is added then."""
        with self._append:
            try:
                if file is not None:
                    fields["file"] = self._keep(Path(file))
                line = json.dumps({"op": op, "time": int(time.time() * 1000), **fields}) + "\n"
                with open(self.folder / RECORDS, "ab") as records:
                    records.write(line.encode())
            except OSError as error:
                raise SpoolFull(f"{self.folder} cannot be written ({error}); free some space") from error

    def pending(self) -> list[Record]:
        """The next records that MLflow has not got, at most LINES."""
        return list(islice(self._records(self.offset), LINES))

    def all(self) -> Iterator[Record]:
        """Every record since the attempt began."""
        return self._records(0)

    def path(self, record: Record) -> Path:
        """The file or folder that a record carries, under its own name."""
        return self.folder / FILES / record.fields["file"]

    def advance(self, record: Record) -> None:
        """MLflow has this record and all before it."""
        self.offset = record.end
        self._save()
        if "file" in record.fields:
            shutil.rmtree(self.path(record).parent, ignore_errors=True)

    def remember(self, runs: dict[str, Any]) -> None:
        """Which runs were opened for the records that follow."""
        self.runs = runs
        self._save()

    def release(self, delivered: bool) -> None:
        """Let go of it; where all was delivered, it is removed."""
        if delivered:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _records(self, offset: int) -> Iterator[Record]:
        """From an offset on; what a crash cut off is no record."""
        with open(self.folder / RECORDS, "rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    fields = json.loads(line)
                    yield Record(fields.pop("op"), fields.pop("time"), offset, fields)
                except (ValueError, KeyError, AttributeError):
                    logger.warning("a record in %s cannot be read and is left out", self.folder)

    def _save(self) -> None:
        write_json(self.folder / POSITION, {"offset": self.offset, "runs": self.runs})

    def _keep(self, file: Path) -> str:
        """Link a file or folder into a folder of its own; returns where, below FILES."""
        held, new = _size(self.folder / FILES), _size(file)
        if held + new > LIMIT:
            raise SpoolFull(f"{file} ({new >> 20} MiB) is not kept for MLflow: {self.folder} holds {held >> 20} MiB")
        place = self.folder / FILES / uuid.uuid4().hex
        place.mkdir()
        (link_tree if file.is_dir() else link_file)(file, place / file.name)
        return f"{place.name}/{file.name}"


def left_behind(root: Path) -> list[Path]:
    """Spools under `root` that hold records, the oldest first; some may be in use."""
    return sorted(path.parent for path in (root / FOLDER).glob(f"*/{RECORDS}"))


def _end_line(path: Path) -> None:
    """What is added after a line that a crash cut off must not become part of it."""
    with open(path, "rb+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _locked(folder: Path) -> IO[str] | None:
    try:
        file = open(folder / LOCK, "a")  # noqa: SIM115 - it is held as long as the spool
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(os.stat(file).st_size for file in files)
