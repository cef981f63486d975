from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rgsud_lib.data.sources import find_sources
from rgsud_lib.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., object]:
    rainy, clean = touch(tmp_path / "rainy", "a.png"), touch(tmp_path / "clean", "b.png")
    return lambda *pair_files: find_sources(str(rainy), str(clean), str(touch(tmp_path / "pairs", *pair_files)))


@pytest.mark.parametrize(("rain", "clean"), [
    ("rain/a.png", "clean/a.png"), ("rainy/a.png", "gt/a.jpg"), ("Input/a.png", "Target/a.png"),
    ("rain/sub/a.png", "norain/sub/a.png"), ("rain/rain-001.png", "clean/norain-001.png"),
    ("rain/001x2.png", "clean/001.png"),
])  # fmt: skip
def test_published_layouts(folders: Callable[..., object], rain: str, clean: str) -> None:
    (pair,) = folders(rain, clean).pairs
    assert (pair[1].name, pair[2].name) == (rain, clean)


@pytest.mark.parametrize(("files", "message"), [
    (["rain/a.png", "rain/b.png", "clean/a.png", "clean/c.png"], "only rainy: b; only clean: c"),
    (["rain/a.png", "rain/a.jpg", "clean/a.png"], "twice: a"),
    (["rain/a.png"], "none of them.*expected one subfolder named clean, gt"),
    (["a.png", "b.png"], "none of them.*expected one subfolder named rain"),
    (["rain/a.png", "rainy/a.png", "clean/a.png"], "both rain and rainy"),
    (["readme.txt"], "no images in the paired folder"),
], ids=str)  # fmt: skip
def test_pairs_that_do_not_match(folders: Callable[..., object], files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        folders(*files)


def test_folders_that_are_missing_empty_or_without_images(tmp_path: Path) -> None:
    rainy, empty = str(touch(tmp_path / "rainy", "a.png")), tmp_path / "empty"
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_sources(rainy, str(tmp_path / "nowhere"), None)
    with pytest.raises(DataError, match="is a file"):
        find_sources(rainy, str(touch(tmp_path, "b.png") / "b.png"), None)
    empty.mkdir()
    with pytest.raises(DataError, match=r"no images in the clean folder .*found nothing"):
        find_sources(rainy, str(empty), None)
    touch(empty, "notes.txt", ".hidden.png")
    with pytest.raises(DataError, match=r"found 1 other files, such as 'notes.txt'"):
        find_sources(rainy, str(empty), None)


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../rainy", "link"])
def test_same_folder_twice(tmp_path: Path, spelling: str) -> None:
    rainy = touch(tmp_path / "rainy", "a.png")
    (tmp_path / "link").symlink_to(rainy)
    other = str(tmp_path / "link") if spelling == "link" else spelling.format(rainy)
    with pytest.raises(DataError, match="the same folder"):
        find_sources(str(rainy), other, None)


def test_folders_inside_each_other(tmp_path: Path) -> None:
    root = touch(tmp_path, "data/clean/a.png", "data/b.png", "pairs/rain/c.png", "pairs/clean/c.png")
    with pytest.raises(DataError, match="rainy folder .* contains the clean folder"):
        find_sources(str(root / "data"), str(root / "data" / "clean"), None)
    with pytest.raises(DataError, match="rainy folder .* contains the paired folder"):
        find_sources(str(root / "pairs"), str(root / "data"), str(root / "pairs"))
    sources = find_sources(str(root / "pairs" / "rain"), str(root / "data"), str(root / "pairs"))
    assert [pair[0] for pair in sources.pairs] == ["c"]


def test_other_files_are_ignored_with_a_warning(tmp_path: Path) -> None:
    rainy = touch(tmp_path / "rainy", "B.PNG", "a.jpeg", "sub/c.tif", "notes.txt", ".git/d.png")
    sources = find_sources(str(rainy), str(touch(tmp_path / "clean", "x.bmp")), None)
    assert [file.name for file in sources.rainy] == ["B.PNG", "a.jpeg", "sub/c.tif"]
    assert sources.warnings == ["rainy: files ignored, as their suffix is no image's: 1, such as notes.txt"]
