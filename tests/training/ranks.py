"""What the two processes of `test_distributed.py` do: stage 1 and 2, undisturbed, stopped, killed and poisoned.

`torchrun ranks.py DATASET OUTPUT CONFIG`; a file per rank with what each saw lies under OUTPUT at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from rgsud_lib import distributed
from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, parse_config
from rgsud_lib.errors import ConfigError, Preempted
from rgsud_lib.tracking import StageRun
from rgsud_lib.training.run import train_recycle, train_reinforce
from rgsud_lib.training.trainer import Trainer

RANK = int(os.environ["RANK"])


class Killed(BaseException):
    """Stands for kill -9 of both processes."""


def stage_1(config: Config, dataset: Path, folder: Path) -> Path:
    if RANK == 0:
        folder.mkdir(parents=True, exist_ok=True)
    train_recycle(config, dataset, folder if RANK == 0 else None, StageRun())
    return folder


def stage_2(config: Config, dataset: Path, recycled: Path, folder: Path) -> Path:
    if RANK == 0:
        folder.mkdir(parents=True, exist_ok=True)
    train_reinforce(config, dataset, recycled, folder if RANK == 0 else None, StageRun())
    return folder


def disturbed(name: str, disturb, work):
    """The result of `work` with a function called before each call of a method of Trainer, or what it raised."""
    original, calls = getattr(Trainer, name), []

    def instead(self, *arguments):
        calls.append(arguments)
        return original(self, *(disturb(self, len(calls), *arguments) or arguments))

    setattr(Trainer, name, instead)
    try:
        return work()
    except (Killed, Preempted, ConfigError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        setattr(Trainer, name, original)


def kill(trainer, call, *arguments):
    if call == 11:
        raise Killed


def terminate(trainer, call, *arguments):
    if call == 9 and RANK == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def poison(trainer, call, name, losses):
    if call == 3 and RANK == 1:
        return name, {key: value * float("nan") for key, value in losses.items()}
    return None


def main() -> None:
    dataset, output, config = Path(sys.argv[1]), Path(sys.argv[2]), parse_config(Path(sys.argv[3]).read_text())
    seen = {}
    recycled = stage_1(config, dataset, output / "recycled")
    if RANK == 0:
        seal(recycled, "recycled", "test")
    distributed.wait()
    stage_2(config, dataset, recycled, output / "reinforced")
    for name, disturb in (("killed", kill), ("terminated", terminate)):
        folder = output / name
        seen[name] = disturbed("_train_step", disturb, lambda: stage_1(config, dataset, folder))  # noqa: B023
        stage_1(config, dataset, folder)
    disturbed("_update", poison, lambda: stage_1(config, dataset, output / "poisoned"))
    odd = config.model_copy(update={"warm_start": config.warm_start.model_copy(update={"batch": 3})})
    seen["odd"] = disturbed("_update", lambda *_: None, lambda: stage_1(odd, dataset, output / "odd"))
    (output / f"seen-{RANK}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
