"""Several processes that train one stage, as functions; in a single process each of them changes nothing.

All ranks hold the same weights, pool and counters. A batch is global: each rank works on its part, and
what the loop goes by (gradients, losses, rewards, stop requests) is made equal here.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rgsud_lib.errors import ConfigError


def launched() -> bool:
    """Whether torchrun (or what is built on it) started this process."""
    return dist.is_torchelastic_launched()


def rank() -> int:
    """Number of this process; 0 logs, validates and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def node() -> int:
    return int(os.environ["GROUP_RANK"]) if dist.is_initialized() else 0


def node_count() -> int:
    return int(os.environ["GROUP_WORLD_SIZE"]) if dist.is_initialized() else 1


def leads_node() -> bool:
    """Whether this process writes what each node keeps for itself: no disk is shared between nodes."""
    return not dist.is_initialized() or os.environ["LOCAL_RANK"] == "0"


def part(count: int) -> slice:
    """This rank's part of a global batch, contiguous. Raises ConfigError where the batch cannot be divided."""
    share, rest = divmod(count, world_size())
    if rest:
        raise ConfigError(
            f"a batch of {count} cannot be divided among {world_size()} processes; change training.batch, "
            "warm_start.batch, training.devices or training.nodes"
        )
    return slice(rank() * share, (rank() + 1) * share)


def average(tensors: Sequence[Tensor]) -> None:
    """Means over all ranks, in place and as one message. What is not finite on one rank is so on all."""
    if world_size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))


def roll(images: Tensor) -> Tensor:
    """`images.roll(1, dims=0)` over the global batch, of which `images` is this rank's part; without gradient."""
    if world_size() == 1:
        return images.roll(1, dims=0)
    last = images[-1:].detach().contiguous()
    lasts = [torch.empty_like(last) for _ in range(world_size())]
    dist.all_gather(lasts, last)
    return torch.cat([lasts[rank() - 1], images[:-1]])


def any_rank(flag: bool) -> bool:
    """True on all ranks where it is on one."""
    if world_size() == 1:
        return flag
    vote = torch.tensor(float(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(vote, dist.ReduceOp.MAX)
    return bool(vote)


def wait() -> None:
    """Until all ranks are here."""
    any_rank(False)


def gather(item: Any) -> list[Any]:
    """Every rank's item, in the order of ranks, on all of them."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def broadcast(item: Any) -> Any:
    """Rank 0's item, on all ranks."""
    if world_size() == 1:
        return item
    items = [item]
    dist.broadcast_object_list(items)
    return items[0]


def node_folder(folder: Path | None) -> Path:
    """Where the ranks of this node keep files: rank 0's `folder`, on other nodes a temporary one of its name."""
    name = broadcast(folder and folder.name)
    if folder is None and node() and leads_node():
        scratch = tempfile.mkdtemp(prefix="rgsud-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        folder = Path(scratch) / name
        folder.mkdir()
    known = gather((node(), folder and folder.absolute()))
    return next(path for number, path in known if number == node() and path)
