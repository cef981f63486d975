"""One unpaired method a file; it knows of rewards only through `Batch.reward`."""

from __future__ import annotations

from rgsud_lib.config import Config
from rgsud_lib.methods.rgsud import RGSUD

METHODS = {"rgsud": RGSUD}


def build_method(config: Config) -> RGSUD:
    """The configured method with freshly initialised networks (seed torch first)."""
    return METHODS[config.method.name](config)
