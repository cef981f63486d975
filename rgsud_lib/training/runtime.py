"""Devices, precision, threads, seeds and signals: what surrounds the loop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rgsud_lib.config import TrainingConfig
from rgsud_lib.distributed import launched
from rgsud_lib.errors import ConfigError


def choose_device(config: TrainingConfig) -> str:
    """ "cuda" or "cpu", as configured; torch's CPU threads are set on the way.

    Raises ConfigError where a GPU is asked for and none is there.
    """
    torch.set_num_threads(config.threads)
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise ConfigError(
            "training.device=cuda, but torch sees no GPU; use --set training.device=auto or check the driver"
        )
    return "cuda" if cuda and config.device != "cpu" else "cpu"


def make_fabric(config: TrainingConfig) -> Any:
    """Lightning Fabric with the configured device, precision and seed; under torchrun, one device of the group."""
    try:
        from lightning_fabric import Fabric  # the light package, without the trainer
    except ImportError:
        from lightning.fabric import Fabric

    device = choose_device(config)
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = device == "cuda"
    precision = config.precision if config.precision != "auto" else ("bf16-mixed" if device == "cuda" else "32-true")
    if not launched():
        return Fabric(accelerator=device, devices=1, precision=precision)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    devices, nodes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
    fabric = Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy="ddp", precision=precision)
    fabric.launch()
    return fabric


class StopRequest:
    """True once SIGTERM has arrived: the loop then saves and stops at the end of its step."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Turn SIGTERM into a request while the block runs (in the main thread; elsewhere nothing changes)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(signum: int, frame: object) -> None:
        request.requested = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
