from __future__ import annotations

from typing import Any

from rgsud_lib.evaluation.verdict import headline, image_gains, summarise, transductive_note

MODELS = ["input", "recycled", "reinforced"]
DIRECTIONS = {"niqe": False, "decorrelation": True}


def rows(
    group: str, scores: dict[str, dict[str, float]], count: int = 12, transductive: int = 0
) -> list[dict[str, Any]]:
    """`count` images with the same scores under each model."""
    return [
        {
            "group": group,
            "id": str(i),
            "name": f"{i}.png",
            "transductive": i < transductive,
            "model": model,
            **scores[model],
        }
        for i in range(count)
        for model in MODELS
    ]


def summary(*parts: list[dict[str, Any]]) -> dict[str, Any]:
    return summarise([row for part in parts for row in part], MODELS, DIRECTIONS, "niqe", "decorrelation")


def pairs(*psnr: float, niqe: tuple[float, ...] = (5.0, 4.0, 3.0), **options: int) -> list[dict[str, Any]]:
    scores = {model: {"psnr_rgb": db, "niqe": n} for model, db, n in zip(MODELS, psnr, niqe, strict=True)}
    return rows("pairs", scores, **options)


def test_a_good_run_has_nothing_to_warn_of() -> None:
    result = summary(pairs(25, 30, 32))
    assert result["warnings"] == []
    assert transductive_note(result) == ""
    assert headline(result)["title"] == "The derained images are 7.0 dB closer to the truth"
    assert headline(result)["numbers"][0] | {"better": True} == headline(result)["numbers"][0]


def test_warnings_say_what_went_wrong() -> None:
    assert "Stage 2 (29.00 dB) is worse than stage 1 (30.00 dB)" in " ".join(summary(pairs(25, 30, 29))["warnings"])
    assert "gained nothing" in " ".join(summary(pairs(25, 30, 30.02))["warnings"])
    harmed = summary(pairs(25, 26, 24))
    assert "farther from the truth (24.00 dB) than the rainy inputs (25.00 dB)" in " ".join(harmed["warnings"])
    assert "12 of 12 images are farther" in " ".join(harmed["warnings"])
    assert headline(harmed)["title"] == "Deraining brought the images no closer to the truth"
    assert "Only 3 pairs" in " ".join(summary(pairs(25, 30, 32, count=3))["warnings"])
    disagreeing = summary(pairs(25, 30, 32, niqe=(3.0, 4.0, 5.0)))
    assert "NIQE prefers rainy input, PSNR RGB stage 2" in " ".join(disagreeing["warnings"])


def test_transductive_pairs_are_counted() -> None:
    result = summary(pairs(25, 30, 32, transductive=5))
    assert transductive_note(result) == "transductive: 5 of 12 rainy inputs were trained on"
    assert "Transductive: 5 of 12" in result["warnings"][0]


def test_reward_that_rises_while_the_judge_falls_is_said() -> None:
    scores = {
        "input": {"niqe": 5.0, "decorrelation": -0.4},
        "recycled": {"niqe": 4.0, "decorrelation": -0.3},
        "reinforced": {"niqe": 4.5, "decorrelation": -0.2},
    }
    warnings = " ".join(summary(rows("held_back_rainy", scores))["warnings"])
    assert "the reward (decorrelation) rose on the held-back rainy images, but the judge (NIQE) got worse" in warnings
    worse = scores | {"reinforced": {"niqe": 6.0, "decorrelation": -0.4}}
    result = summary(rows("held_back_rainy", worse))
    assert "NIQE finds the held-back rainy inputs better" in " ".join(result["warnings"])
    assert headline(result)["title"] == "NIQE judges the derained images no better"


def test_gains_point_upwards_in_every_metric() -> None:
    scores = pairs(25, 30, 32)
    result = summary(scores)
    assert set(image_gains(result, scores, "pairs", "psnr_rgb").values()) == {7.0}
    assert set(image_gains(result, scores, "pairs", "niqe").values()) == {2.0}


def test_missing_scores_are_left_out_of_the_means() -> None:
    scores = pairs(25, 30, 32)
    for row in scores[:3]:
        del row["niqe"]
    assert summary(scores)["pairs"]["mean"]["input"]["niqe"] == 5.0
