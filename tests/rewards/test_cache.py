from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rgsud_lib.errors import BundleError
from rgsud_lib.rewards.cache import CachedScorer, ScoreCache, pixel_digest
from rgsud_lib.rewards.decorrelation import Decorrelation

GENERATOR = torch.Generator().manual_seed(0)
OUTPUT, RAINY = torch.rand(2, 4, 3, 40, 48, generator=GENERATOR)


class Counting:
    """A scorer that tells how many images it was given."""

    name, version, higher_is_better = "counting", "1", False

    def __init__(self, version: str = "1", value: float | None = None) -> None:
        self.version, self.value, self.seen = version, value, 0

    def __call__(self, output: torch.Tensor, rainy: torch.Tensor | None) -> torch.Tensor:
        self.seen += len(output)
        rain = 0 if rainy is None else rainy.mean(dim=(1, 2, 3))
        return output.mean(dim=(1, 2, 3)) / 3 + rain if self.value is None else torch.full((len(output),), self.value)


def test_same_results_as_the_scorer_itself_and_across_files(tmp_path: Path) -> None:
    expected = Decorrelation()(OUTPUT, RAINY)
    for _ in range(2):
        with ScoreCache(tmp_path / "scores.sqlite") as cache:
            scorer = CachedScorer(Decorrelation(), cache)
            assert torch.equal(scorer(OUTPUT, RAINY), expected)
            assert torch.equal(scorer(OUTPUT, RAINY), expected)
            assert scorer(OUTPUT, RAINY).dtype == torch.float32
            assert (scorer.name, scorer.version) == ("decorrelation", Decorrelation().version)
            assert len(scorer.seconds) == 12 and min(scorer.seconds) > 0


def test_only_what_is_new_is_computed(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        first = Counting()
        CachedScorer(first, cache)(OUTPUT[:3], RAINY[:3])
        again = Counting()
        scores = CachedScorer(again, cache)(OUTPUT, RAINY)
        assert (first.seen, again.seen) == (3, 1)
        assert torch.equal(scores, Counting()(OUTPUT, RAINY))
        for other in (
            (OUTPUT, RAINY.flip(0)),
            (OUTPUT, None),
            (OUTPUT.transpose(-1, -2), RAINY.transpose(-1, -2)),
            (OUTPUT.double(), RAINY.double()),
        ):
            scorer = Counting()
            CachedScorer(scorer, cache)(*other)
            assert scorer.seen == 4
        newer = Counting(version="2")
        CachedScorer(newer, cache)(OUTPUT, RAINY)
        assert newer.seen == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_handed_on_but_not_kept(tmp_path: Path, value: float) -> None:
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        scorer = Counting(value=value)
        for _ in range(2):
            assert not CachedScorer(scorer, cache)(OUTPUT, RAINY).isfinite().any()
        assert scorer.seen == 8


def test_digest_looks_at_values_shapes_and_types() -> None:
    image = torch.zeros(3, 4, 6)
    variants = (image, image.view(3, 6, 4), image.double(), image + 1, image.bfloat16())
    digests = [pixel_digest(variant) for variant in variants]
    digests += [pixel_digest(image, None), pixel_digest(None, image), pixel_digest(image, image)]
    assert len(set(digests)) == len(digests)
    assert pixel_digest(OUTPUT[0].transpose(1, 2)) == pixel_digest(OUTPUT[0].transpose(1, 2).contiguous())


WRITE = """
import sys
from pathlib import Path
from rgsud_lib.rewards.cache import ScoreCache
cache = ScoreCache(Path(sys.argv[1]))
for number in range(10**9):
    cache.put("s 1", str(number), number / 7, 0.1)
    print(number, flush=True)
"""


def test_a_killed_process_leaves_every_score_it_had_put(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    command = [sys.executable, "-c", WRITE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 200:
            pass
        process.send_signal(signal.SIGKILL)
        last = max([200, *map(int, process.stdout.read().split())])
    with ScoreCache(path) as cache:
        assert [cache.get("s 1", str(number)) for number in range(last)] == [(n / 7, 0.1) for n in range(last)]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "scores.sqlite") as first, ScoreCache(tmp_path / "scores.sqlite") as second:
        first.put("s 1", "a", 1.5, 0.1)
        second.put("s 1", "b", 2.5, 0.1)
        assert second.get("s 1", "a") == (1.5, 0.1) and first.get("s 1", "b") == (2.5, 0.1)


def test_a_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.sqlite").write_text("no database at all, but long enough to be looked at")
    with pytest.raises(BundleError, match="scores.sqlite cannot be used as a cache of scores.*delete it"):
        ScoreCache(tmp_path / "scores.sqlite")
