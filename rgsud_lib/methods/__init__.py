"""One unpaired method a file. `build_method` is the axis on which methods are exchanged."""

from __future__ import annotations

from rgsud_lib.config import Config
from rgsud_lib.methods.batch import Batch
from rgsud_lib.methods.csud import CSUD
from rgsud_lib.methods.cyclegan import CycleGAN
from rgsud_lib.methods.dcdgan import DCDGAN
from rgsud_lib.methods.derain_cyclegan import DerainCycleGAN
from rgsud_lib.methods.method import Method, Update, Updates
from rgsud_lib.methods.nlcl import NLCL
from rgsud_lib.methods.rgsud import RGSUD

__all__ = ["METHODS", "Batch", "Method", "Update", "Updates", "build_method"]

# Their names in the configuration: `config/methods.py`.
METHODS: dict[str, type[Method]] = {
    "rgsud": RGSUD,
    "csud": CSUD,
    "cyclegan": CycleGAN,
    "derain_cyclegan": DerainCycleGAN,
    "dcdgan": DCDGAN,
    "nlcl": NLCL,
}


def build_method(config: Config) -> Method:
    """The configured method with freshly initialised networks (seed torch first)."""
    return METHODS[config.method.name](config)
