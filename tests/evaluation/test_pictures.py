"""Which images the report shows."""

from __future__ import annotations

import pytest

from rgsud_lib.evaluation.pictures import chosen_ranks


@pytest.mark.parametrize("count", [1, 2, 3, 8, 12])
def test_best_median_and_worst_are_shown_and_none_twice(count):
    for total in range(1, 60):
        chosen = chosen_ranks(total, count)
        positions = [position for position, _ in chosen]
        assert positions == sorted(set(positions))
        assert min(count, total) - 1 <= len(positions) <= min(count, total)
        names = dict(chosen)
        assert names[0] == ("largest gain" if min(count, total) > 1 else "only image")
        if min(count, total) > 2:
            assert names[(total - 1) // 2] == "median gain" and names[total - 1] == "smallest gain"
