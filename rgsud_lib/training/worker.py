"""`python -m rgsud_lib.training.worker`: one of the processes that train a stage, started by torchrun.

Single machine and TrainJob alike: the job comes by the environment. The first process does the whole stage, the
others only the training in it.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import record

from rgsud_lib import stages
from rgsud_lib.config import parse_config
from rgsud_lib.storage.remote import pulled
from rgsud_lib.task import FAILURE, task
from rgsud_lib.tracking import StageRun
from rgsud_lib.training.launch import JOB


def main() -> None:
    """Do this process's share; its error is left where the launcher looks for it."""
    job, rank = json.loads(os.environ.pop(JOB)), int(os.environ["RANK"])
    os.environ.pop(FAILURE, None)  # the launching process's own
    if "failures" in job:
        os.environ[FAILURE] = str(Path(job["failures"]) / f"failure-{rank}.json")
    with task(job["stage"]):
        record(_work if rank == 0 else _join)(job)


def _work(job: dict[str, Any]) -> None:
    stage = getattr(stages, job["stage"])
    stage(parse_config(job["config"]), **job["bundles"], workdir=job["workdir"])


def _join(job: dict[str, Any]) -> None:
    from rgsud_lib.training.run import train_recycle, train_reinforce

    logging.getLogger("rgsud").setLevel(logging.ERROR)  # the first process speaks for all
    train = {"recycle": train_recycle, "reinforce": train_reinforce}[job["stage"]]
    bundles = {kind: pulled(place) for kind, place in job["bundles"].items()}
    train(parse_config(job["config"]), **bundles, folder=None, run=StageRun())


if __name__ == "__main__":
    main()
