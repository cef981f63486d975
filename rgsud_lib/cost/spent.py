"""Seconds that work took, by machine, and the sums people ask for. GPUs count while they are reserved, busy or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from rgsud_lib.cost.prices import Prices


@dataclass(frozen=True)
class Spent:
    """What attempts at something took on machines of one kind, added up.

    `seconds` are those of the clock. `lost` of them came after the last saved state of an attempt that did not end
    well, so that the work was done again.
    """

    device: str = "cpu"  # the GPU's name, or "cpu"
    gpus: int = 0  # reserved at once
    cpus: int = 1  # cores that could be used at once
    pool: str = ""  # RGSUD_POOL, which placements set to their name
    seconds: float = 0.0
    lost: float = 0.0
    attempts: int = 1

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Spent:
        """A line of a bundle's `cost`."""
        return cls(**{field.name: document[field.name] for field in fields(cls) if field.name in document})


@dataclass(frozen=True)
class Total:
    """Sums over machines; money only where prices are known."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    lost: float = 0.0
    lost_gpu_seconds: float = 0.0
    attempts: int = 0
    money: float | None = None
    lost_money: float | None = None


def merge(lines: Iterable[Spent]) -> list[Spent]:
    """One line for each kind of machine: what several attempts, or shards, took adds up."""
    merged: dict[tuple[str, int, int, str], Spent] = {}
    for line in lines:
        key = line.device, line.gpus, line.cpus, line.pool
        known = merged.get(key, replace(line, seconds=0.0, lost=0.0, attempts=0))
        merged[key] = replace(
            known,
            seconds=round(known.seconds + line.seconds, 1),
            lost=round(known.lost + line.lost, 1),
            attempts=known.attempts + line.attempts,
        )
    return list(merged.values())


def total(lines: Iterable[Spent], prices: Prices | None = None) -> Total:
    """The sums. Raises ConfigError where the prices lack a device that was used."""
    lines = list(lines)
    by_hour = [(line, prices.hourly(line.device, line.pool, line.gpus, line.cpus) if prices else 0.0) for line in lines]
    return Total(
        seconds=sum(line.seconds for line in lines),
        gpu_seconds=sum(line.gpus * line.seconds for line in lines),
        lost=sum(line.lost for line in lines),
        lost_gpu_seconds=sum(line.gpus * line.lost for line in lines),
        attempts=sum(line.attempts for line in lines),
        money=sum(line.seconds / 3600 * price for line, price in by_hour) if prices else None,
        lost_money=sum(line.lost / 3600 * price for line, price in by_hour) if prices else None,
    )


def words(lines: Iterable[Spent], prices: Prices | None = None) -> str:
    """One line: "2 h 5 min, 7,500 GPU-seconds on NVIDIA H100, 6.25 EUR; 8 min of it (0.40 EUR) lost to stops"."""
    lines = list(lines)
    if not lines:
        return "not recorded"
    sums = total(lines, prices)
    where = " and ".join(dict.fromkeys(line.device if line.gpus else f"{line.cpus} CPU cores" for line in lines))
    gpus = f", {sums.gpu_seconds:,.0f} GPU-seconds" if sums.gpu_seconds else ""
    text = f"{duration(sums.seconds)}{gpus} on {where}"
    if prices:
        text += f", {sums.money:,.2f} {prices.currency}"
    if sums.lost >= 1:
        price = f" ({sums.lost_money:,.2f} {prices.currency})" if prices else ""
        text += f"; {duration(sums.lost)} of it{price} lost to stops"
    return text


def stage_metrics(stage: str, cost: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, float]:
    """For MLflow, over all attempts at a stage; `facts["images"]` and `["megapixels"]` are what it worked through."""
    sums = total(map(Spent.parse, cost))
    metrics = {"gpu_seconds": sums.gpu_seconds, "lost_seconds": sums.lost, "attempts": sums.attempts}
    for unit, many in (("image", "images"), ("megapixel", "megapixels")):
        if facts.get(many):
            metrics[f"seconds_per_{unit}"] = sums.seconds / facts[many]
    return {f"cost/{stage}_{name}": value for name, value in metrics.items()}


def duration(seconds: float) -> str:
    """ "2 h 5 min", "3 min 20 s", "7 s"."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def documents(lines: Iterable[Spent]) -> list[dict[str, Any]]:
    """For JSON: `Spent.parse` reads them."""
    return [asdict(line) for line in lines]
