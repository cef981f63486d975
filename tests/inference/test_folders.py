"""`derain_path`: one image or a folder into files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from rgsud_lib.errors import DataError
from rgsud_lib.inference import derain_image, derain_path


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = (40, 53)) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_derains_one_image_to_a_file_or_into_a_folder(derainer: nn.Module, model_file: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "rainy.bmp")
    expected = derain_image(derainer, image, tile=1024, overlap=64)
    assert derain_path(tmp_path / "rainy.bmp", tmp_path / "clean.png", model_file) == [tmp_path / "clean.png"]
    assert np.array_equal(read(tmp_path / "clean.png"), expected)
    assert derain_path(tmp_path / "rainy.bmp", tmp_path / "out", model_file) == [tmp_path / "out" / "rainy.png"]
    derain_path(tmp_path / "rainy.bmp", tmp_path / "clean.jpg", model_file)
    with Image.open(tmp_path / "clean.jpg") as jpeg:
        assert (jpeg.format, jpeg.size) == ("JPEG", (53, 40))


def test_derains_a_folder_past_bad_files(model_file: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "deep" / "b.webp", seed=1)
    (tmp_path / "in" / "bad.jpg").write_text("not an image")
    (tmp_path / "in" / "notes.txt").write_text("passed over")
    with pytest.raises(DataError, match=r"1 of 3 images could not be derained.*\n.*bad\.jpg: not an image"):
        derain_path(tmp_path / "in", tmp_path / "out", model_file)
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "deep/b.png"]


def test_does_not_overwrite_unless_told(model_file: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "b.png", seed=1)
    kept = save_image(tmp_path / "out" / "b.png", seed=2)
    with pytest.raises(DataError, match=r"b\.png exists"):
        derain_path(tmp_path / "in", tmp_path / "out", model_file)
    assert not (tmp_path / "out" / "a.png").exists()
    assert np.array_equal(read(tmp_path / "out" / "b.png"), kept)
    derain_path(tmp_path / "in", tmp_path / "out", model_file, overwrite=True)
    assert not np.array_equal(read(tmp_path / "out" / "b.png"), kept)


def test_refuses_what_leads_nowhere(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        derain_path(tmp_path / "empty", tmp_path / "out", model_file)
    with pytest.raises(DataError, match="does not exist"):
        derain_path(tmp_path / "nowhere", tmp_path / "out", model_file)
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "a.jpg")
    with pytest.raises(DataError, match=r"would both become .*a\.png"):
        derain_path(tmp_path / "in", tmp_path / "out", model_file)
