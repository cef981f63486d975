"""The thread that carries a stage's records to MLflow while the stage goes on."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from rgsud_lib.tracking import mlflow_store
from rgsud_lib.tracking.address import first_line
from rgsud_lib.tracking.delivery import Delivery
from rgsud_lib.tracking.replay import replay
from rgsud_lib.tracking.spool import Spool

PAUSE = 1.0  # seconds between two deliveries: what is logged meanwhile goes together
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds from one attempt to the next while MLflow is away, doubled each time
logger = logging.getLogger("rgsud")


class Sender:
    """Sends what was left behind in the workdir, then this stage's spool as it grows."""

    def __init__(self, spool: Spool, workdir: Path | str) -> None:
        self.delivery, self._spool, self._workdir = Delivery(spool, workdir), spool, workdir
        self._failures = mlflow_store.failures()
        self._changed = threading.Condition()
        self._news = self._ending = self._over = self._caught_up = False
        self._asked = self._tried = 0  # flushes
        self._wait = 0.0
        self._thread = threading.Thread(target=self._run, name="rgsud tracking", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """There are new records."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all that is there was sent, or could not be."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._tried >= mine or self._over)

    def finish(self) -> bool:
        """A last attempt; whether MLflow has everything."""
        with self._changed:
            self._asked += 1
            self._ending = True
            self._changed.notify_all()
        self._thread.join()
        return not self._spool.pending()

    def _run(self) -> None:
        try:
            while not (self._ending and self._tried == self._asked):
                self._once()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _once(self) -> None:
        """One attempt, then a pause, which a flush cuts short."""
        with self._changed:
            asked, self._news = self._asked, False
        try:
            if not self._caught_up:
                replay(self._workdir)
            self.delivery.deliver()
            self._caught_up, self._wait = True, 0.0  # what else was left behind, the next stage may send
        except self._failures as error:
            if not self._wait:
                logger.warning(
                    "MLflow cannot be written (%s); training goes on and this is sent later", first_line(error)
                )
            self._wait = min(LONGEST_WAIT, max(FIRST_WAIT, 2 * self._wait))
        with self._changed:
            self._tried = asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._asked > asked or self._ending, timeout=self._wait or PAUSE)
            if not self._wait:
                self._changed.wait_for(lambda: self._news or self._asked > asked or self._ending)
