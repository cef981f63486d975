"""Sets are found whatever the case of their names, and never train on the clean images of their own pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgsud_lib.errors import DataError
from rgsud_lib.tables.sources import find_sets


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def test_pairs_only_train_on_other_clean_images(tmp_path: Path) -> None:
    data = folders(tmp_path, "rain100L/rain", "rain100L/clean", "clean_bsds")
    (found,), absent = find_sets(data, ["Rain100L", "Rain200L"])
    assert (found.name, absent) == ("Rain100L", ["Rain200L"])
    assert (found.rainy, found.clean, found.paired) == tuple(
        str(data / name) for name in ("rain100L/rain", "clean_bsds", "rain100L")
    )


def test_the_published_layout_trains_on_its_training_part(tmp_path: Path) -> None:
    parts = [f"RainLight/{split}/{kind}" for split in ("train", "test") for kind in ("rain", "clean")]
    data = folders(tmp_path, *parts)
    (found,), _ = find_sets(data, ["Rain200L"])  # under its other name
    assert (found.rainy, found.clean, found.paired) == tuple(
        str(data / "RainLight" / name) for name in ("train/rain", "train/clean", "test")
    )
    (other,), _ = find_sets(data, ["Rain200L"], clean=tmp_path / "mine")
    assert other.clean == str(tmp_path / "mine")


@pytest.mark.parametrize("clean", [(), ("clean_a", "clean_b")])
def test_pairs_only_without_one_clean_folder_are_refused(tmp_path: Path, clean: tuple[str, ...]) -> None:
    data = folders(tmp_path, "Rain100L/rain", "Rain100L/clean", *clean)
    with pytest.raises(DataError, match="may not be trained on; give clean photographs of other scenes: --clean DIR"):
        find_sets(data, ["Rain100L"])


def test_an_absent_set_is_told_with_its_layout_and_what_is_there(tmp_path: Path) -> None:
    data = folders(tmp_path, "rain-100-l/rain", ".hidden")
    with pytest.raises(DataError, match=r"no copy of Rain200L.*found rain-100-l; --on Rain100L takes") as error:
        find_sets(data, ["Rain200L"])
    assert "Rain200L/test/clean/NAME.png" in str(error.value)


def test_a_set_without_pairs_is_told_with_its_layout(tmp_path: Path) -> None:
    data = folders(tmp_path, "Rain100L/rain", "clean_bsds")
    with pytest.raises(DataError, match=r"no copy of Rain100L in .*Rain100L \(found rain\)"):
        find_sets(data, ["Rain100L"])


def test_a_missing_data_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; give the one that holds a folder for each set"):
        find_sets(tmp_path / "nowhere", ["Rain100L"])
