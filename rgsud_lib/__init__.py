"""RGSUD: unpaired image deraining by reward-guided self-reinforcement (arXiv 2605.00719)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rgsud_lib.inference import Derainer

__version__ = "0.1.0"
__all__ = ["Derainer", "__version__"]


def __getattr__(name: str) -> Any:
    """`rgsud_lib.Derainer`, imported, with torch, when it is first asked for."""
    if name == "Derainer":
        from rgsud_lib.inference import Derainer

        return Derainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
