"""The audit's figures against their definitions, and what its verdict says of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from rgsud_lib.rewards.audit.ranking import figures, interval, rank_correlation
from rgsud_lib.rewards.audit.verdict import contenders, describe

RNG = np.random.default_rng(0)


def test_rank_correlation_is_spearmans() -> None:
    first, second = RNG.integers(0, 5, (20, 7)).astype(float), RNG.normal(size=(20, 7))
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation(np.ones((1, 4)), second[:1, :4]).tolist() == [0.0]


def test_interval_has_the_width_of_theory() -> None:
    values = RNG.normal(3.0, 2.0, 400)
    found = interval(values, np.arange(400))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    assert found == interval(values, np.arange(400))
    twice = interval(np.repeat(values, 2), np.repeat(np.arange(400), 2))  # the same scenes again tell nothing new
    assert twice == pytest.approx(found)


def test_figures_of_picks() -> None:
    psnr = np.array([[30.0, 31.0, 29.0], [20.0, 22.0, 25.0]])
    found = figures(np.array([[2.0, 1.0, 0.0], [5.0, 5.0, 5.0]]), psnr, psnr, 2, np.arange(2))
    assert found["picked_psnr_rgb"] == 25.0  # 30 and, of equal scores, the first: 20
    assert found["gain"]["mean"] == (1 - 5) / 2
    assert found["regret"]["mean"] == (1 + 5) / 2
    assert found["over_blind"]["mean"] == pytest.approx((0 - 7 / 3) / 2)
    assert found["spearman_psnr"]["mean"] == pytest.approx(0.25)  # 0.5 and 0
    assert found["constant_images"] == 1


def verdict(low: float, shares: tuple[float, ...], gain: tuple[float, float] = (0.2, 0.4)) -> tuple[str, list[str]]:
    def entry(number: int) -> dict:
        value = {"mean": 0.6 - 0.1 * number, "low": low, "high": 0.9}
        outputs = dict.fromkeys(("spearman_psnr", "spearman_ssim", "over_blind"), value)
        outputs |= {"gain": {"mean": gain[0], "low": -9.0, "high": gain[1]}, "regret": {"mean": 0.1 * (1 + number)}}
        return {
            "name": f"s{number}", "first_share": shares[number], "with_input": {"picks_input_wrongly": 0},
            "outputs": outputs | {"picked_psnr_rgb": 30.0, "constant_images": 0},
        }  # fmt: skip

    base = {"last_source": "new", "last_source_psnr_rgb": 29.4, "best_source": "old", "best_source_psnr_rgb": 30.5}
    summary = {
        "images": 50, "scenes": 50, "sources": [{}] * 9, "baselines": base, "warnings": ["from reading"],
        "scorers": [entry(number) for number in range(len(shares))],
    }  # fmt: skip
    assert [e["name"] for e in contenders(summary)] == [f"s{n}" for n, s in enumerate(shares) if n == 0 or s > 0.025]
    described = describe(summary)
    return described["verdict"]["title"], described["warnings"]


def test_the_verdict_says_how_sure_it_is() -> None:
    assert verdict(0.3, (0.99, 0.01))[0] == "Use s0 as the reward on these images"
    assert verdict(0.3, (0.7, 0.29, 0.01))[0] == "Use s0, but s1 may be as good"
    assert verdict(-0.1, (0.99, 0.01))[0] == "None of these scorers can be trusted on these images"
    title, warnings = verdict(0.3, (1.0,))
    assert title == "s0 ranks these images' outputs better than chance"
    assert warnings == ["from reading", "Always taking old would give 0.50 dB more than picking by it."]


def test_a_scorer_whose_picks_lose_is_not_recommended() -> None:
    assert verdict(0.3, (0.99, 0.01), gain=(-1.94, -0.8))[0] == "s0 orders outputs best, but its picks lose 1.9 dB"
    for gain in ((-0.5, 0.1), (-0.03, -0.01)):  # unsure, or a tie
        title, warnings = verdict(0.3, (0.99, 0.01), gain)
        assert title == "Use s0 as the reward on these images"
        assert "Picking by s0 is no better than always taking the last source." in warnings
