"""Sums, money and words of what work took."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgsud_lib.cost.prices import Prices, read_prices
from rgsud_lib.cost.spent import Spent, documents, duration, merge, stage_metrics, total, words
from rgsud_lib.errors import ConfigError

H100 = {"device": "NVIDIA H100", "gpus": 4, "cpus": 8}
LINES = [
    Spent(**H100, pool="gpu-spot", seconds=600.0, lost=100.0),
    Spent(**H100, pool="gpu-spot", seconds=3000.0),
    Spent(cpus=2, seconds=1800.0),
]
PRICES = Prices(currency="EUR", gpu_hour={"NVIDIA H100": 3.0, "gpu-spot": 1.0}, cpu_core_hour=0.05)


def test_attempts_on_the_same_kind_of_machine_add_up_and_others_stay_apart() -> None:
    gpu, cpu = merge(LINES)
    assert (gpu.seconds, gpu.lost, gpu.attempts) == (3600.0, 100.0, 2)
    assert cpu == LINES[2]
    assert merge([gpu, cpu]) == [gpu, cpu] == [Spent.parse(line) for line in documents([gpu, cpu])]


def test_gpu_seconds_count_every_reserved_gpu_and_money_is_by_pool_device_or_cores() -> None:
    sums = total(LINES, PRICES)
    assert (sums.seconds, sums.gpu_seconds, sums.lost, sums.lost_gpu_seconds) == (5400.0, 14400.0, 100.0, 400.0)
    assert sums.money == pytest.approx(4 * 1.0 + 0.5 * 2 * 0.05), "a GPU's price is that of its cores too"
    assert sums.lost_money == pytest.approx(400 / 3600)
    on_demand = total([Spent(**H100, seconds=900.0)], PRICES)
    assert on_demand.money == pytest.approx(3.0)
    assert total(LINES).money is None


def test_words_say_it_in_one_line() -> None:
    assert words(LINES, PRICES) == (
        "1 h 30 min, 14,400 GPU-seconds on NVIDIA H100 and 2 CPU cores, 4.05 EUR; "
        "1 min 40 s of it (0.11 EUR) lost to stops"
    )
    assert words(LINES[2:]) == "30 min 0 s on 2 CPU cores"
    assert words([]) == "not recorded"
    assert [duration(seconds) for seconds in (0.4, 59.6, 7265)] == ["0 s", "1 min 0 s", "2 h 1 min"]


def test_metrics_name_their_unit_and_leave_out_what_is_not_counted() -> None:
    metrics = stage_metrics("recycle", documents(LINES), {"images": 540, "megapixels": 2.7})
    assert metrics == {
        "cost/recycle_gpu_seconds": 14400.0, "cost/recycle_lost_seconds": 100.0, "cost/recycle_attempts": 3,
        "cost/recycle_seconds_per_image": 10.0, "cost/recycle_seconds_per_megapixel": pytest.approx(2000.0),
    }  # fmt: skip
    assert "cost/export_seconds_per_image" not in stage_metrics("export", documents(LINES), {})


def test_a_price_table_is_read_from_the_file_named_or_from_the_environment(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("currency: EUR\ngpu_hour: {NVIDIA H100: 3, gpu-spot: 1}\ncpu_core_hour: 0.05\n")
    monkeypatch.delenv("RGSUD_PRICES", raising=False)
    assert read_prices() is None
    assert read_prices(file) == PRICES
    monkeypatch.setenv("RGSUD_PRICES", str(file))
    assert read_prices() == PRICES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu_hour: {a: 1}", "currency: Field required; expected currency"),
        ("currency: EUR\ngpu_hour: {a: -1}", "gpu_hour.a: Input should be greater than or equal to 0"),
        ("currency: EUR\ngpu: 1", "gpu: Extra inputs are not permitted"),
        ("a: [", "cannot be read"),
        ("- 1", "Input should be a valid dictionary"),
    ],
)
def test_a_price_table_with_a_mistake_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(ConfigError, match="price table .*prices.yaml") as error:
        read_prices(tmp_path / "prices.yaml")
    assert message in str(error.value)


def test_a_gpu_without_a_price_is_named() -> None:
    with pytest.raises(ConfigError, match="no gpu_hour of 'NVIDIA L4' or pool 'gpu'; it has .*'gpu-spot'.*: add it"):
        total([Spent("NVIDIA L4", 1, 4, "gpu", 60.0)], PRICES)
