"""How large a tile, and how many images at once, the free memory allows: stated, and equal on equal machines."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

TILES = (512, 384, 256, 128)  # the first is the evaluation's; larger ones are no better, and slower on a CPU
BATCH = 8  # images at once, on a GPU; on a CPU one at a time is more than twice as fast
SCRATCH = 4  # the libraries' work space and the allocator's waste: 2.7 to 3.2 times the tensors where measured
UNKNOWN = 1200  # bytes a pixel of a network that torch cannot look into: the published NAFNet's
_PROBE = 128  # pixels
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_memory(device: torch.device) -> int:
    """Free bytes of a GPU, or of this machine within the limit of the container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    try:
        limit, used = ((_CONTROL_GROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def bytes_per_pixel(network: nn.Module, device: torch.device) -> int:
    """Largest size of all tensors that live at once in a forward pass, per pixel of the input."""
    with torch.no_grad(), _LiveTensors() as live:
        network(torch.zeros(1, 3, _PROBE, _PROBE, device=device))
    return max(live.peak // _PROBE**2, UNKNOWN if next(network.parameters(), None) is None else 0)


def choose_tile(per_pixel: int, available: int) -> int:
    """The first of `TILES` that takes at most half of the available bytes; the last where none does."""
    fitting = (tile for tile in TILES if SCRATCH * per_pixel * tile**2 <= available / 2)
    return next(fitting, TILES[-1])


def choose_batch(per_pixel: int, tile: int, device: torch.device) -> int:
    """How many images of one size go through the network at once."""
    if device.type == "cpu":
        return 1
    return max(1, min(BATCH, available_memory(device) // 2 // (SCRATCH * per_pixel * tile**2)))


class _LiveTensors(TorchFunctionMode):
    """Counts the bytes of the storages that torch's functions make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor) and (storage := result.untyped_storage()) not in self._known:
                self._known.add(storage)
                weakref.finalize(storage, self._freed, storage.nbytes())
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
        return results

    def _freed(self, size: int) -> None:
        self.now -= size
