"""What a comparison says: only what differs, gains with intervals, rewards as no evidence, cost; what it refuses."""

from __future__ import annotations

import json

import pytest

from rgsud_lib.comparison import report
from rgsud_lib.comparison.compare import compare
from rgsud_lib.comparison.runs import open_runs
from rgsud_lib.comparison.tables import cost_table, headline, metrics_table, settings_table, terminal
from rgsud_lib.cost.prices import Prices
from rgsud_lib.errors import ComparisonError


@pytest.fixture(autouse=True)
def untracked(monkeypatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")


def test_only_settings_that_differ_are_shown(make_run) -> None:
    runs = open_runs([make_run("a", 30), make_run("b", 31, settings=("training.seed=7", "training.steps=9"))])
    comparison = compare(runs)
    assert comparison.settings == {"training.seed": [0, 7], "training.steps": [100, 9]}
    assert settings_table(comparison).rows == [["training.seed", "0", "7"], ["training.steps", "100", "9"]]


def test_gains_are_paired_and_the_interval_decides(make_run) -> None:
    runs = open_runs([make_run("a", 30.0), make_run("b", 31.0), make_run("c", 29.0), make_run("d", 30.0)])
    comparison = compare(runs)
    row = comparison.main
    assert (row.group, row.metric, row.count, row.rewards) == ("pairs", "psnr_rgb", 3, ())
    assert [gain.gain for gain in row.gains] == pytest.approx([1.01, -1.01, 0.0])
    assert [row.verdict(index) for index in (1, 2, 3)] == ["better", "worse", "not told apart"]
    assert headline(comparison) == (
        "B is better than A; C is worse than A; D cannot be told from A: PSNR RGB on 3 pairs"
    )
    table = metrics_table(comparison)
    assert table.rows[0][:5] == ["pairs: PSNR RGB ↑", "3", "19.00", "29.30", "30.31 (+1.01, +1.00 to +1.02)"]
    assert (0, 4) in table.best
    judged = next(row for row in comparison.rows if row.metric == "niqe")
    assert [judged.verdict(index) for index in (1, 2)] == ["better", "worse"], "lower is better"


def test_what_was_a_runs_reward_is_marked_and_never_decides(make_run) -> None:
    runs = open_runs([make_run("a", 30, paired=False), make_run("b", 31, scorer="niqe", paired=False)])
    comparison = compare(runs)
    (row,) = comparison.rows
    assert (row.metric, row.rewards) == ("niqe", ("B",))
    assert comparison.main is None and headline(comparison).startswith("Nothing that was nobody's reward")
    assert any("Not compared, since not all runs have it" in note and "rain_layer" in note for note in comparison.notes)
    assert metrics_table(comparison).best == frozenset()


def test_scores_of_other_scorer_settings_are_not_compared(make_run) -> None:
    runs = open_runs([make_run("a", 30), make_run("b", 31, settings=("scorers.combine=rank",))])
    assert {row.metric for row in compare(runs).rows} == {"psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"}


def test_other_images_are_refused_with_the_reason(make_run) -> None:
    with pytest.raises(ComparisonError) as error:
        open_runs([make_run("a", 30), make_run("b", 30, paired=False)])
    text = str(error.value)
    assert "evaluate-a was scored on dataset" in text and "evaluate-b on" in text and "their manifests differ" in text
    assert "rgsud evaluate --dataset DIR" in text


def test_the_same_run_twice_is_refused(make_run) -> None:
    place = make_run("a", 30)
    with pytest.raises(ComparisonError, match=r"evaluate-a is given twice \(A and B\)"):
        open_runs([place, place])


def test_cost_is_summed_over_all_that_a_run_was_made_from(make_run) -> None:
    runs = open_runs([make_run("a", 30), make_run("b", 31, cost={"seconds": 300.0, "lost": 60.0, "attempts": 2})])
    comparison = compare(runs, Prices(currency="EUR", gpu_hour={"NVIDIA H100": 3.6}))
    table = {row[0]: row[1:] for row in cost_table(comparison).rows}
    assert table["prepare"] == ["1 min 40 s", "1 min 40 s"] and table["reinforce"] == ["1 min 40 s", "5 min 0 s"]
    assert table["all"] == ["6 min 40 s", "16 min 40 s"] and table["GPU-seconds"] == ["400", "1,000"]
    assert table["lost to stops"] == ["0 s", "3 min 0 s"] and table["money, EUR"] == ["0.40", "1.00"]
    assert table["of it lost, EUR"] == ["0.00", "0.18"] and table["attempts at stages"] == ["4", "7"]
    assert table["recycle: seconds per image"] == ["2", "6"]
    assert table["recycle: seconds per megapixel"] == ["500", "1.5e+03"]
    assert any("prepare" in note and "counts in each" in note for note in comparison.notes)


def test_models_that_are_the_same_are_said_to_be(make_run) -> None:
    comparison = compare(open_runs([make_run("a", 30), make_run("b", 30)]))
    assert "A and B ended in the same weights, to the bit." in comparison.notes
    assert metrics_table(comparison).best == frozenset()


def test_one_run_shows_its_values_and_its_cost(make_run) -> None:
    text = terminal(compare(open_runs([make_run("a", 30)])))
    assert "PSNR RGB on 3 pairs 29.30" in text and "6 min 40 s" in text and "Settings" not in text


def test_the_page_has_pictures_of_every_run_and_the_document_no_nan(make_run, tmp_path) -> None:
    places = [make_run("a", 30), make_run("b", 31, scorer="critic")]
    made = report.make_report(places, report.Options(strips=2))
    assert made.page.parent.parent == tmp_path / "work" / "compare" and made.run_id == ""
    page = made.page.read_text()
    assert page.count("<figure><img") == 2 * 4, "before, A, B, clean"
    assert "largest difference" in page and "B is better than A" in page and "reward.scorer" in page
    document = json.loads((made.page.parent / "compare.json").read_text(), parse_constant=pytest.fail)
    assert document["settings"]["reward.scorer"] == ["rain_layer", "critic"]
    assert report.make_report(places, report.Options(strips=0)).page == made.page


def test_without_their_bundles_there_are_no_pictures_but_a_note(make_run, tmp_path) -> None:
    import shutil

    places = [make_run("a", 30), make_run("b", 31)]
    shutil.rmtree(tmp_path / "work" / "stages" / "reinforce-b")
    made = report.make_report(places, report.Options())
    assert "No pictures: the reinforced bundle of B is not in its workdir any more." in made.text
