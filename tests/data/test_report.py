from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rgsud_lib.config import DataConfig
from rgsud_lib.data import report
from rgsud_lib.data.prepare import prepare_dataset

from .conftest import photo


@pytest.fixture
def page(tmp_path: Path, photos: Callable[..., Path]) -> str:
    rainy, clean = photos("rainy", range(5)), photos("clean", range(10, 14))
    (rainy / "<script>alert(1)<").mkdir()
    (rainy / "<script>alert(1)<" / "script>.png").write_text("no picture")
    Image.fromarray(photo(3)).save(rainy / '"onload=x.jpg', quality=90)
    for side in ("rain", "clean"):
        photos(f"pairs/{side}", [2, 20])
    Image.fromarray(photo(20)).save(clean / "leak.png")
    prepare_dataset(DataConfig(), str(rainy), str(clean), str(tmp_path / "pairs"), tmp_path / "out")
    return (tmp_path / "out" / "report.html").read_text()


def test_page_shows_what_happened(page: str) -> None:
    for text in ("not an image: 1", "leak: the scene of the evaluation image", "Near-duplicates", "Evaluation pairs"):
        assert text in page
    assert '<span class="badge">1 transductive</span>' in page


def test_page_is_self_contained_and_escaped(page: str, tmp_path: Path) -> None:
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;.png" in page
    assert '""onload' not in page and "&#34;onload=x.jpg" in page
    assert "http" not in page and page.count("src=") == page.count('src="data:image/jpeg;base64,') > 9
    assert str(tmp_path) not in page


def test_large_sets_are_shown_in_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: Callable[..., Path]
) -> None:
    monkeypatch.setattr(report, "SHOWN", 3)
    rainy, clean = photos("rainy", range(9)), photos("clean", range(10, 14))
    prepare_dataset(DataConfig(), str(rainy), str(clean), None, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "8 images, 3 shown" in page and page.count("<figure>") == 3 + 1 + 3 + 1
