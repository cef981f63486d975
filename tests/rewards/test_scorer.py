"""A scorer that cannot choose is found before training, not after."""

from __future__ import annotations

import pytest
import torch

from rgsud_lib.config import load_config
from rgsud_lib.errors import RgsudError, TrainingError
from rgsud_lib.rewards import require_weights
from rgsud_lib.rewards.decorrelation import Decorrelation
from rgsud_lib.rewards.rain_layer import RainLayer
from rgsud_lib.rewards.scorer import check_scorer


class Always:
    name, version, higher_is_better = "always", "0", True

    def __init__(self, score: float):
        self.score = score

    def __call__(self, output, rainy):
        return torch.full((len(output),), self.score)


@pytest.fixture
def rainy() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(1, 3, 40, 300, generator=generator) for name in ("a", "b")}


@pytest.mark.parametrize("scorer", [Decorrelation(), RainLayer()])
def test_scorers_that_choose_pass(scorer, rainy):
    check_scorer(scorer, rainy)


def test_a_constant_scorer_is_refused(rainy):
    with pytest.raises(TrainingError, match="'always' gave image a, .* the same score 0.5, and so for 2 images"):
        check_scorer(Always(0.5), rainy)


def test_a_score_that_is_not_finite_is_refused(rainy):
    with pytest.raises(TrainingError, match="nan.* for image a"):
        check_scorer(Always(float("nan")), rainy)


def test_a_judge_without_its_weights_fails_before_training(tmp_path):
    missing = tmp_path / "none.pt"
    with pytest.raises(RgsudError, match="none.pt"):
        require_weights("daclip", load_config("cpu", [f"scorers.daclip.checkpoint={missing}"]))
    require_weights("niqe+piqe", load_config("cpu"))
