"""The price table: a YAML file that `--prices` or RGSUD_PRICES names.

    currency: EUR
    gpu_hour: {NVIDIA H100 80GB HBM3: 2.90, gpu-spot: 1.10}   # by pool or device; the pool's comes first
    cpu_core_hour: 0.04

A GPU's price is that of the machine around it too; cores are charged where no GPU is reserved.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from rgsud_lib.config.section import Section
from rgsud_lib.errors import ConfigError

FILE = "RGSUD_PRICES"
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(Section):
    """Money an hour. `gpu_hour` is by pool (the placement's name) or by device, as in MLflow's tag `rgsud.device`."""

    currency: str = Field(min_length=1)
    gpu_hour: dict[str, Price] = {}
    cpu_core_hour: Price = 0.0

    def hourly(self, device: str, pool: str, gpus: int, cpus: int) -> float:
        """What a machine costs an hour. Raises ConfigError: no price for its GPU."""
        if not gpus:
            return cpus * self.cpu_core_hour
        price = self.gpu_hour.get(pool, self.gpu_hour.get(device))
        if price is None:
            where = f"{device!r}" + (f" or pool {pool!r}" if pool else "")
            raise ConfigError(f"the price table has no gpu_hour of {where}; it has {sorted(self.gpu_hour)}: add it")
        return gpus * price


def read_prices(path: Path | str | None = None) -> Prices | None:
    """The table in `path`, else in the file that RGSUD_PRICES names; None where neither is given.

    Raises ConfigError: unreadable, an unknown key, a price that is no number.
    """
    path = path or os.environ.get(FILE)
    if not path:
        return None
    import yaml

    try:
        return Prices.model_validate(yaml.safe_load(Path(path).read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"the price table {path} cannot be read: {error}") from error
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(
            f"the price table {path}: {mistakes}; expected currency, gpu_hour (device or pool: price), cpu_core_hour"
        ) from None
