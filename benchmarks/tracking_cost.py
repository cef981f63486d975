"""What MLflow costs a training step: in SQLite, on a server, on a server that is away.

    python benchmarks/tracking_cost.py --steps 60 --out benchmarks/results/tracking_cost.json

Stage 1 of the demo preset with its own intervals of logging and validation. `waited_share` is the time for which
the training thread was inside a call of the tracking run, over that of the whole training; `background_share` the
processor time of the thread that talks to MLflow over that of all else. Comparing the steps' own times would need a
quiet machine.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from record import write_record

from rgsud_lib import stages, tracking
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.demo import make_demo_data
from rgsud_lib.tracking.sender import Sender
from rgsud_lib.tracking.spooled_run import SpooledRun
from rgsud_lib.training.run import train_recycle

SETTINGS = ("critic.enabled=false", "reward.scorer=rain_layer", "warm_start.enabled=false", "training.device=cpu")
CALLS = ("log_rows", "log_image", "log_artifact", "set_tags", "log_input")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tracking_cost.json"))
    arguments = parser.parse_args()
    config = load_config("demo", [*SETTINGS, f"training.steps={arguments.steps}"])
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["RGSUD_TRACKING"] = "off"
        dataset = stages.prepare(config, *map(str, make_demo_data(root / "data")), root / "prepared")
        with _server(root) as address:
            places = {"sqlite": "", "server": address, "server away": f"http://127.0.0.1:{_free_port()}"}
            for name, uri in places.items():
                results[name] = _measure(config, Path(dataset), root / name.replace(" ", "-"), uri)
    write_record(arguments.out, {"steps": arguments.steps, "places": results})


def _measure(config: Config, dataset: Path, workdir: Path, uri: str) -> dict[str, Any]:
    """Seconds in all, and the two shares, of one training."""
    os.environ |= {"RGSUD_TRACKING": "on", "MLFLOW_TRACKING_URI": uri}
    spent: dict[str, float] = {"waited": 0.0, "background": 0.0}
    with _counted(SpooledRun, CALLS, spent, "waited", time.perf_counter), \
            _counted(Sender, ("_once",), spent, "background", time.thread_time), \
            tracking.stage_run("recycle", config, workdir, "k") as run:  # fmt: skip
        run.flush()  # opening the run is no part of a step
        spent |= {"waited": 0.0, "background": 0.0}
        folder = workdir / "recycle"
        folder.mkdir()
        start, start_cpu = time.perf_counter(), time.process_time()
        train_recycle(config, dataset, folder, run)
        seconds, processor = time.perf_counter() - start, time.process_time() - start_cpu
        in_steps = dict(spent)
    return {
        "seconds_per_step": seconds / config.training.steps,
        "waited_milliseconds_per_step": 1000 * in_steps["waited"] / config.training.steps,
        "waited_share": in_steps["waited"] / seconds,
        "background_share": in_steps["background"] / (processor - in_steps["background"]),
    }


@contextmanager
def _counted(
    owner: type, names: tuple[str, ...], spent: dict[str, float], key: str, clock: Callable[[], float]
) -> Iterator[None]:
    """Add the time of these methods' calls to `spent[key]`."""
    originals = {name: getattr(owner, name) for name in names}

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = clock()
            try:
                return original(*arguments, **named)
            finally:
                spent[key] += clock() - start

        return call

    for name, original in originals.items():
        setattr(owner, name, counting(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(owner, name, original)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """An MLflow server with SQLite on this machine."""
    address = f"http://127.0.0.1:{_free_port()}"
    options = ("--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--workers", "1")
    stores = ("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "store"))
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", *options, *stores]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not _answers(address):
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(f"{address}/health", timeout=5).status == 200
    except (urllib.error.URLError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
