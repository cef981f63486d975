"""Sums of scorers: how they are written, made comparable, and versioned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rgsud_lib.config import Config, load_config
from rgsud_lib.errors import ConfigError, DataError, TrainingError
from rgsud_lib.rewards import build_scorer
from rgsud_lib.rewards.decorrelation import Decorrelation
from rgsud_lib.rewards.ensemble import Ensemble, reference_sample
from rgsud_lib.rewards.rain_layer import RainLayer
from rgsud_lib.scorer_names import parse_scorer


@pytest.fixture(scope="module")
def clean() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (5, 10, 12, 3)).astype(np.uint8)
    return [np.kron(image, np.ones((12, 12, 1), np.uint8)) for image in coarse]


@pytest.mark.parametrize("combine", ["zscore", "rank"])
def test_better_images_score_higher(clean, combine):
    config = load_config("cpu", [f"scorers.combine={combine}"])
    scorer = build_scorer("rain_layer+2*decorrelation", config, clean)
    outputs, rainy = reference_sample(clean)[2]
    left_by_quarters = scorer(outputs[:6], rainy[:6])
    assert left_by_quarters.argmax() >= 4 and left_by_quarters[0] == left_by_quarters.min()


def test_a_member_counts_by_its_spread_and_weight(clean):
    members = [RainLayer(), Decorrelation()]
    outputs, rainy = reference_sample(clean)[0]
    ensemble = Ensemble.fit("both", members, [1, 3], "zscore", clean)
    expected = sum(
        weight * member(outputs, rainy).double() / spread
        for member, weight, spread in zip(members, (0.25, 0.75), ensemble.spread, strict=True)
    )
    torch.testing.assert_close(ensemble(outputs, rainy), expected.float())
    within = np.concatenate([s - s.mean() for s in (members[0](*pair).numpy() for pair in reference_sample(clean))])
    assert ensemble.spread[0] == pytest.approx(float(np.sqrt(np.square(within).mean())), rel=1e-5)


def test_ranks_lie_within_the_sample(clean):
    ensemble = Ensemble.fit("one", [RainLayer()], [1], "rank", clean)
    scores = torch.cat([ensemble(*pair) for pair in reference_sample(clean)])
    assert scores.min() >= -0.0011 and scores.max() <= 1.0011
    assert scores.double().numpy().std() == pytest.approx(np.linspace(0, 1, len(scores)).std(), rel=0.02)


def test_the_version_follows_members_weights_sample_and_rule(clean):
    def version(name="rain_layer+decorrelation", images=clean, **settings):
        config = load_config("cpu", [f"scorers.{key}={value}" for key, value in settings.items()])
        return build_scorer(name, config, images).version

    versions = [
        version(), version("rain_layer+2*decorrelation"), version(images=clean[1:]), version(combine="rank"),
    ]  # fmt: skip
    assert len(set(versions)) == 4 and version() == versions[0]
    assert version("0.5*rain_layer+0.5*decorrelation") == versions[0]


def test_a_constant_scorer_is_named(clean):
    class Constant:
        name, version, higher_is_better = "constant", "0", True

        def __call__(self, output, rainy):
            return torch.zeros(len(output))

    with pytest.raises(TrainingError, match="'constant'.*leave it out"):
        Ensemble.fit("both", [RainLayer(), Constant()], [1, 1], "zscore", clean)
    with pytest.raises(DataError, match="needs clean images"):
        Ensemble.fit("none", [RainLayer()], [1], "zscore", [])


def test_names():
    assert parse_scorer("critic+2*decorrelation + 0.5*pyiqa:musiq") == {
        "critic": 1.0, "decorrelation": 2.0, "pyiqa:musiq": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rain_layr", "did you mean 'rain_layer'.*known: clip_iqa"),
        ("niqe+niqe", "'niqe' twice"),
        ("-1*niqe", "weight '-1' is not a number above 0"),
        ("x*niqe", "weight 'x'"),
        ("niqe+", "unknown scorer ''"),
        ("pyiqa:", "unknown scorer 'pyiqa:'"),
        ("2*niqe", "single one and needs no weight; write niqe"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(ConfigError, match=message):
        parse_scorer(name)


def test_a_reward_and_its_judge_share_no_scorer():
    with pytest.raises(ConfigError, match="share niqe"):
        load_config("cpu", ["reward.scorer=niqe+rain_layer"])
    with pytest.raises(ConfigError, match="share piqe"):
        load_config("cpu", ["reward.scorer=pyiqa:piqe", "evaluation.judge=piqe"])
    with pytest.raises(ConfigError, match="critic.enabled=true"):
        load_config("cpu", ["reward.scorer=critic", "critic.enabled=false"])
    assert isinstance(load_config("cpu", ["reward.scorer=critic"]), Config)


def test_candidate_sources_in_the_configuration():
    assert load_config("cpu", ["reward.candidates=mirror"]).reward.candidates == ("mirror",)
    assert load_config("cpu", ["reward.candidates=plain, blend"]).reward.candidates == ("plain", "blend")
    with pytest.raises(ConfigError, match="names a source twice"):
        load_config("cpu", ['reward.candidates=["plain", "plain"]'])
    with pytest.raises(ConfigError, match="'decorrelation' does not say where.*critic, rain_layer"):
        load_config("cpu", ["reward.candidates=tiles", "reward.scorer=decorrelation"])
