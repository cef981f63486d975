"""A stage's own clock: each attempt leaves how long it lasted and how much of that is saved, also if it is killed.

What a killed attempt took is known to the last beat of its clock: a small file in the stage's folder, or an object
beside its bundle where that is in S3, since the machine may go with its disk. A stage without checkpoints saves
nothing before its end.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rgsud_lib.config import Config
from rgsud_lib.cost.spent import Spent, documents, merge
from rgsud_lib.errors import DataError
from rgsud_lib.files import CHECKPOINT, write_json
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import list_objects
from rgsud_lib.storage.s3 import is_remote

BEAT, REMOTE_BEAT = 5.0, 30.0  # seconds
ATTEMPTS = ".attempts"
LAST_SAVE = f"{CHECKPOINT}/latest.json"  # training writes it last
CGROUP_CPUS = Path("/sys/fs/cgroup/cpu.max")
logger = logging.getLogger("rgsud")


class Meter:
    """Measures one attempt, `with Meter(...)`; `place` is the stage's bundle to be, `folder` where it is worked on."""

    def __init__(self, place: str, folder: Path, config: Config) -> None:
        self.config, self.saves = config, folder / LAST_SAVE
        self.attempts = f"{place}/{ATTEMPTS}"
        self.name = f"{uuid.uuid4().hex}.json"
        self._began, self._clock = time.time(), time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="meter", daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self._ended.set()
        self._thread.join(BEAT)  # a server that hangs must not hold up the end
        if kind is not None:
            self._write()

    def spent(self, parts: Iterable[Spent] = ()) -> list[dict[str, Any]]:
        """What all attempts took so far, and `parts` beside them: a bundle's `cost`. Of this one nothing is lost."""
        return documents(merge([*parts, *self._others(), self._now(lost=0.0)]))

    def forget(self) -> None:
        """The bundle has it all now."""
        if is_remote(self.attempts):
            transfer.delete_below(self.attempts)
        else:
            shutil.rmtree(self.attempts, ignore_errors=True)

    def _now(self, lost: float | None = None) -> Spent:
        seconds = time.monotonic() - self._clock
        saved = self.saves.stat().st_mtime - self._began if self.saves.is_file() else 0.0
        lost = seconds - min(max(saved, 0.0), seconds) if lost is None else lost
        return Spent(**machine(self.config), seconds=round(seconds, 1), lost=round(lost, 1))

    def _beat(self) -> None:
        pause = REMOTE_BEAT if is_remote(self.attempts) else BEAT
        self._write()
        while not self._ended.wait(pause):
            self._write()

    def _write(self) -> None:
        (document,) = documents([self._now()])
        try:
            if is_remote(self.attempts):
                transfer.write(f"{self.attempts}/{self.name}", json.dumps(document).encode())
            else:
                Path(self.attempts).mkdir(parents=True, exist_ok=True)
                write_json(Path(self.attempts, self.name), document)
        except (DataError, OSError) as error:
            logger.warning("what this attempt takes could not be written down: %s", error)

    def _others(self) -> list[Spent]:
        try:
            if is_remote(self.attempts):
                found = [item.read() for item in list_objects(self.attempts) if item.name != self.name]
            else:
                found = [path.read_bytes() for path in Path(self.attempts).glob("*.json") if path.name != self.name]
        except DataError as error:
            logger.warning("what earlier attempts took is not known: %s", error)
            return []
        return [Spent.parse(json.loads(document)) for document in found]


def machine(config: Config) -> dict[str, Any]:
    """What this process holds, with all processes that share its batches: device, gpus, cpus, pool."""
    torch = sys.modules.get("torch")  # a stage that has not imported it runs on the CPU
    importing = torch is not None and getattr(torch.__spec__, "_initializing", False)  # by another thread, right now
    cuda = config.training.device != "cpu" and torch is not None and not importing and torch.cuda.is_available()
    processes = int(os.environ.get("WORLD_SIZE", 1))  # torchrun's
    gpus = max(int(os.environ.get("RGSUD_GPUS") or 0), processes if cuda else 0)
    device = str(torch.cuda.get_device_name()) if cuda else "GPU" if gpus else "cpu"
    cpus = _cores() * int(os.environ.get("GROUP_WORLD_SIZE", 1))
    return {"device": device, "gpus": gpus, "cpus": cpus, "pool": os.environ.get("RGSUD_POOL", "")}


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    if CGROUP_CPUS.is_file():  # a container's limit
        quota, period = CGROUP_CPUS.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores
