"""A trainer's state as one dictionary of tensors, numbers, strings and containers of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rgsud_lib.errors import BundleError

if TYPE_CHECKING:
    from rgsud_lib.training.trainer import Trainer


def capture(trainer: Trainer) -> dict[str, Any]:
    """All that the next step depends on."""
    return {
        "key": trainer.resume_key, "method": trainer.config.method.name,
        "phase": trainer.phase_name, "step": trainer.step,
        "skipped": trainer.skipped, "last_psnr": trainer.last_psnr, "flops": trainer.effort.flops,
        "networks": trainer.method.state_dict(),
        "ema": trainer.ema.module.state_dict(), "ema_updates": trainer.ema.updates,
        "optimizers": {name: optimizer.state_dict() for name, optimizer in trainer.optimizers.items()},
        "pool": trainer.pool.index(), "recycler": trainer.recycler.state(), "curves": trainer.curves.state(),
    }  # fmt: skip


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Take over a state, but for the curves.

    Raises BundleError where another method, configuration or dataset made it.
    """
    theirs, name = state.get("method", "rgsud"), trainer.config.method.name
    if theirs != name:
        raise BundleError(
            f"the checkpoint in {trainer.folder} is of method {theirs!r}, this configuration's is {name!r}; "
            f"use --set method.name={theirs}, or another --workdir"
        )
    if state["key"] != trainer.resume_key:
        raise BundleError(
            f"the checkpoint in {trainer.folder} belongs to another configuration or dataset "
            f"({state['key']}, expected {trainer.resume_key}); delete the folder or use another --workdir"
        )
    trainer.step, trainer.skipped, trainer.last_psnr = state["step"], state["skipped"], state["last_psnr"]
    trainer.effort.flops = state["flops"]
    trainer.method.load_state_dict(state["networks"])
    trainer.ema.module.load_state_dict(state["ema"])
    trainer.ema.updates = state["ema_updates"]
    for name, optimizer in trainer.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    trainer.pool.restore(state["pool"])
    trainer.pool.spread_pictures()
    trainer.recycler.restore(state["recycler"])
