from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.config import DataConfig
from rgsud_lib.data import demo
from rgsud_lib.data.degradations import DEGRADATIONS, Degradation
from rgsud_lib.data.demo import make_demo_data, views
from rgsud_lib.data.prepare import prepare_dataset, source_digest
from rgsud_lib.errors import DataError

from .conftest import photo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    return make_demo_data(tmp_path_factory.mktemp("demo") / "data")


def test_enough_images_and_nothing_leaks(made: tuple[str, str, str], tmp_path: Path) -> None:
    facts = prepare_dataset(DataConfig(), *made, tmp_path)
    assert 20 <= facts["clean_train"] <= 40 and 12 <= facts["rainy_train"] <= 20 and facts["pairs"] == 8
    assert facts["transductive"] == facts["quarantined"] == facts["duplicates"] == 0 and not facts["warnings"]


def test_pairs_differ_by_added_rain(made: tuple[str, str, str]) -> None:
    for clean in sorted(Path(made[2], "clean").iterdir()):
        before, after = (np.asarray(Image.open(path), int) for path in (clean, Path(made[2], "rain", clean.name)))
        assert (after >= before).all() and 0.5 < np.mean(after - before) < 90


def test_hazy_pairs_are_paler(made: tuple[str, str, str], tmp_path: Path) -> None:
    rainy, clean, paired = make_demo_data(tmp_path / "haze", "haze")
    for target in sorted(Path(paired, "clean").iterdir()):
        before, after = (np.asarray(Image.open(path), float) for path in (target, Path(paired, "rain", target.name)))
        assert after.std() < before.std()
    for hazy, drawn in zip((rainy, clean), made, strict=False):
        assert {path.name for path in Path(hazy).iterdir()} == {path.name for path in Path(drawn).iterdir()}


def test_same_files_each_time_and_nothing_half_made(
    made: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(DEGRADATIONS, "rain", Degradation(fail, fail))
        with pytest.raises(KeyboardInterrupt):
            make_demo_data(tmp_path / "again")
        assert not (tmp_path / "again").exists()
    again = make_demo_data(tmp_path / "again")
    assert source_digest(*again) == source_digest(*made)
    marker = Path(again[0]) / "china-0.png"
    written = marker.stat().st_mtime_ns
    assert make_demo_data(tmp_path / "again") == again and marker.stat().st_mtime_ns == written


def test_views_cover_the_photograph() -> None:
    image = photo(1, 430, 640)
    *parts, centre, half = views(image)
    rows = [np.concatenate(parts[:2], 1), np.concatenate(parts[2:], 1)]
    assert np.array_equal(np.concatenate(rows), image)
    assert centre.shape == (210, 280, 3) and half.shape == (215, 320, 3)


def test_missing_photograph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "CLEAN", ("no_such_package/data/x.png",))
    with pytest.raises(DataError, match="no_such_package does not ship data/x.png"):
        make_demo_data(tmp_path / "demo")
