"""The gate's truth table: what is promoted, what is held, and why."""

from __future__ import annotations

import json

import pytest

from rgsud_lib.config import GateConfig, load_config
from rgsud_lib.errors import ConfigError
from rgsud_lib.evaluation.gate import Contest, Scores, decide

IMAGES = [f"i{number}" for number in range(8)]
NOISE = [0.3, -0.2, 0.1, -0.4, 0.2, 0.0, -0.1, 0.1]
JUDGES = {"niqe": False, "piqe": False, "decorrelation": True}
RULES = GateConfig()


def spread(value: float, wobble: float = 0.0) -> dict[str, float]:
    """Images of different difficulty; `wobble` times a noise of its own, of mean zero."""
    return {
        image: value + 2.0 * number + wobble * noise
        for number, (image, noise) in enumerate(zip(IMAGES, NOISE, strict=True))
    }


def scores(
    psnr: float | None, niqe: float = 4.0, piqe: float = 30.0, decorrelation: float = 0.5, reward: float = 0.5,
    clean: float = 38.0, wobble: float = 0.0, seconds: float = 1.0,
) -> Scores:  # fmt: skip
    """A model's scores; `psnr` None: there are no pairs."""
    values = {
        "rainy/niqe": spread(niqe, wobble),
        "rainy/piqe": spread(piqe, wobble),
        "rainy/decorrelation": spread(decorrelation, wobble / 10),
        "rainy/critic": spread(reward),
        "clean/psnr_rgb": dict.fromkeys(IMAGES[:4], clean),
    }
    if psnr is not None:
        values["pairs/psnr_rgb"] = spread(psnr, wobble)
    return Scores(values, seconds)


def judge(challenger: Scores, champion: Scores | None, nothing: Scores | None = None, rules: GateConfig = RULES):
    paired = "pairs/psnr_rgb" in challenger.values
    nothing = nothing or scores(25.0 if paired else None, niqe=6.0, piqe=40.0, decorrelation=-1.0, clean=100.0)
    return decide(rules, Contest(challenger, champion, nothing, JUDGES, {"critic": True}))


NAN = Scores({**scores(31.0).values, "rainy/niqe": {**spread(4.0), "i3": float("nan")}}, 1.0)
TABLE = [
    # name, challenger, champion, promoted, in the reasons
    ("first", scores(31.0), None, True, "better than doing nothing"),
    ("first, worse than nothing", scores(24.5, wobble=1), None, False, "not better than doing nothing"),
    ("equal", scores(31.0), scores(31.0), False, "not better than the champion"),
    ("better", scores(31.6, wobble=1), scores(31.0), True, "better than the champion: pairs/psnr_rgb"),
    ("worse", scores(30.6, wobble=1), scores(31.0), False, "not better than the champion"),
    ("better within noise", scores(31.05, wobble=1), scores(31.0), False, "not better than the champion"),
    ("better by the reward only", scores(31.0, reward=0.9, wobble=0.1), scores(31.0), False, "not better than the"),
    ("better by reward and judges, not on pairs", scores(31.0, 3.0, 20.0, reward=0.9), scores(31.0), False, "pairs/ps"),
    ("harms clean images", scores(33.0, clean=25.0), scores(31.0), False, "come back at 25.00 dB (champion 38.00"),
    ("first, harms clean images", scores(33.0, clean=27.0), None, False, "at least 30.00 dB needed"),
    ("a little less careful", scores(33.0, clean=37.6), scores(31.0), True, "at least 37.00 dB needed"),
    ("champion does little", scores(33.0, clean=41.0), scores(31.0, clean=55.0), True, "at least 40.00 dB needed"),
    ("slow", scores(33.0, seconds=2.1), scores(31.0), False, "2.10 s a megapixel (champion 1.00 s)"),
    ("slow, but the first", scores(33.0, seconds=90.0), None, True, "finite"),
    ("NaN", NAN, scores(31.0), False, "the challenger got rainy/niqe = nan for image i3"),
    ("cannot load", Scores(fault="cannot be loaded: x"), None, False, "the challenger cannot be loaded: x"),
    ("constant", Scores(fault="makes a constant picture of a"), scores(31.0), False, "constant picture of a"),
    ("champion lost", scores(33.0), Scores(fault="cannot be loaded: y"), False, "the champion cannot be loaded: y"),
    ("unpaired, first", scores(None), None, True, "3 of 3 judges say so"),
    ("unpaired, equal", scores(None), scores(None), False, "0 of 3 judges say so, 0 the contrary"),
    ("unpaired, two judges", scores(None, 3.0, 28.0, wobble=1), scores(None), True, "2 of 3 judges say so"),
    ("unpaired, one judge", scores(None, 3.0, wobble=1), scores(None), False, "1 of 3 judges say so"),
    ("unpaired, one objects", scores(None, 3.0, 28.0, 0.1), scores(None), False, "2 of 3 judges say so, 1 the con"),
    ("unpaired, reward only", scores(None, reward=0.9), scores(None), False, "0 of 3 judges say so"),
]


@pytest.mark.parametrize(("challenger", "champion", "promoted", "reason"), [row[1:] for row in TABLE], ids=[
    row[0] for row in TABLE
])  # fmt: skip
def test_truth_table(challenger: Scores, champion: Scores | None, promoted: bool, reason: str) -> None:
    verdict = judge(challenger, champion)
    assert verdict.decision == ("promote" if promoted else "hold"), verdict.reasons
    assert any(reason in text for text in verdict.reasons), verdict.reasons


def test_every_rule_is_listed_with_both_values_and_the_reward_apart() -> None:
    verdict = judge(scores(31.6, reward=0.9), scores(31.0))
    assert [check.rule for check in verdict.checks] == [
        "sound", "better than doing nothing", "better than the champion", "harmless to clean images", "quick",
    ]  # fmt: skip
    gain = verdict.checks[2].gains[0]
    assert (gain.first, gain.second, gain.gain) == pytest.approx((38.6, 38.0, 0.6))
    assert gain.low <= gain.gain <= gain.high
    assert verdict.reward is not None and verdict.reward.gain == pytest.approx(0.4)
    assert json.loads(json.dumps(verdict.document(), allow_nan=False))["decision"] == "promote"


def test_a_margin_is_what_the_interval_must_exceed() -> None:
    better = scores(31.6, wobble=1), scores(31.0)
    assert judge(*better, rules=GateConfig(margin=0.3)).decision == "promote"
    assert judge(*better, rules=GateConfig(margin=0.6)).decision == "hold"


def test_a_bound_on_the_time_holds_for_the_first_model_too() -> None:
    rules = GateConfig(slowest=1.5)
    for champion in (None, scores(31.0, seconds=1.6)):
        assert judge(scores(33.0, seconds=1.4), champion, rules=rules).decision == "promote"
        held = judge(scores(33.0, seconds=1.6), champion, rules=rules)
        assert held.decision == "hold" and held.reasons == ["1.60 s a megapixel, at most 1.5 s allowed"]


def test_a_few_pairs_do_not_decide_and_too_few_images_hold() -> None:
    few = {image: 40.0 for image in IMAGES[:4]}
    challenger = Scores({**scores(None).values, "pairs/psnr_rgb": few}, 1.0)
    assert "judges say so" in judge(challenger, scores(None)).reasons[0]
    tiny = Scores({"rainy/niqe": few, "rainy/piqe": few, "clean/psnr_rgb": few}, 1.0)
    assert "fewer than 5 held-back images" in judge(tiny, None).reasons[0]


def test_one_spoilt_clean_image_counts() -> None:
    spoilt = {**dict.fromkeys(IMAGES, 100.0), "i0": 15.0}
    challenger = Scores({**scores(33.0).values, "clean/psnr_rgb": spoilt}, 1.0)
    assert "come back at 24.03 dB" in judge(challenger, None).reasons[0]


def test_the_document_has_no_nan() -> None:
    document = judge(NAN, scores(31.0)).document()
    json.dumps(document, allow_nan=False)
    assert document["decision"] == "hold"


def test_judges_that_share_a_member_with_the_reward_are_not_asked() -> None:
    assert load_config("demo").gate_judges == ["niqe", "piqe", "decorrelation"]
    assert load_config("demo", ["reward.scorer=critic+decorrelation"]).gate_judges == ["niqe", "piqe"]
    with pytest.raises(ConfigError, match=r"fewer than two that share nothing with reward.scorer='decorrelation\+pyiq"):
        load_config("demo", ["reward.scorer=decorrelation+pyiqa:piqe"])
