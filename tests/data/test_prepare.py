from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from rgsud_lib.bundle import seal
from rgsud_lib.config import DataConfig
from rgsud_lib.data.manifest import Dataset, Manifest, content_id
from rgsud_lib.data.prepare import prepare_dataset, source_digest
from rgsud_lib.errors import BundleError, DataError

from .conftest import photo

CONFIG = DataConfig()
Photos = Callable[..., Path]


def prepare(
    tmp_path: Path, rainy: Path, clean: Path, paired: Path | None = None, config: DataConfig = CONFIG
) -> Manifest:
    prepare_dataset(config, str(rainy), str(clean), paired and str(paired), tmp_path / "out")
    return Manifest.model_validate_json((tmp_path / "out" / "manifest.json").read_bytes())


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rain_on(clean: Path, folder: Path) -> Path:
    """The same scenes with streaks, under the same names."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in clean.iterdir():
        image = np.asarray(Image.open(path)).copy()
        image[10::17, ::2] = 255
        Image.fromarray(image).save(folder / path.name)
    return folder


def test_dataset_holds_the_pixels(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(5)), photos("clean", range(10, 22))
    manifest = prepare(tmp_path, rainy, clean)
    assert [len(manifest.select("rainy", split)) for split in ("train", "validation")] == [4, 1]
    assert [len(manifest.select("clean", split)) for split in ("train", "validation")] == [11, 1]
    bundle = seal(tmp_path / "out", "dataset", "0")
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.digest == bundle.digest and not manifest.warnings
    for record in dataset.select("rainy"):
        original = np.asarray(Image.open(rainy / record.name))
        assert np.array_equal(dataset.image(record.id), original) and record.id == content_id(original)
        assert (record.height, record.width) == original.shape[:2]
        assert record.source_digest == hashlib.sha256((rainy / record.name).read_bytes()).hexdigest()


def test_cache_is_bounded_and_images_are_read_only(tmp_path: Path, photos: Photos) -> None:
    manifest = prepare(tmp_path, photos("rainy", range(4)), photos("clean", range(10, 13)))
    seal(tmp_path / "out", "dataset", "0")
    bytes_an_image = 96 * 128 * 3
    dataset = Dataset.open(tmp_path / "out", cache_bytes=2 * bytes_an_image)
    first, second, third = (record.id for record in manifest.images[:3])
    kept = dataset.image(first)
    assert dataset.image(first) is kept
    dataset.image(second), dataset.image(first), dataset.image(third)
    assert dataset.image(first) is kept and sum(image.nbytes for image in dataset._cache.values()) == 2 * bytes_an_image
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 0
    with pytest.raises(BundleError, match="'0000' cannot be read"):
        dataset.image("0000")


def test_altered_dataset_is_refused(tmp_path: Path, photos: Photos) -> None:
    manifest = prepare(tmp_path, photos("rainy", range(2)), photos("clean", range(10, 12)))
    with pytest.raises(BundleError, match="not a finished bundle"):
        Dataset.open(tmp_path / "out")
    seal(tmp_path / "out", "dataset", "0")
    path = tmp_path / "out" / "images" / f"{manifest.images[0].id}.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="was altered"):
        Dataset.open(tmp_path / "out")


def test_broken_and_small_files_are_quarantined(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(3)), photos("clean", range(10, 13))
    (rainy / "text.png").write_text("this is no picture")
    (rainy / "cut.jpg").write_bytes(b"")
    Image.fromarray(photo(5)).save(rainy / "whole.jpg")
    (rainy / "cut.jpg").write_bytes((rainy / "whole.jpg").read_bytes()[:900])
    Image.fromarray(photo(6, 10, 10)).save(rainy / "tiny.png")
    manifest = prepare(tmp_path, rainy, clean)
    reasons = {item.name: item.reason.partition(":")[0] for item in manifest.quarantined}
    assert reasons == {"text.png": "not an image", "cut.jpg": "damaged image", "tiny.png": "too small"}
    assert {record.name for record in manifest.select("rainy")} == {"000.png", "001.png", "002.png", "whole.jpg"}
    assert "quarantined files: 3; " in manifest.warnings[0]
    assert len(list((tmp_path / "out" / "images").iterdir())) == 7


def test_nothing_usable_says_why(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(3), height=20), photos("clean", range(10, 13))
    (rainy / "text.png").write_text("this is no picture")
    with pytest.raises(DataError, match=r"only 0 usable rainy images, at least 2.*too small: 3 .*; not an image: 1 "):
        prepare(tmp_path, rainy, clean)
    assert not (tmp_path / "out" / "manifest.json").exists()
    lonely = photos("lonely", [1])
    with pytest.raises(DataError, match=r"only 1 usable clean images.*none were refused"):
        prepare(tmp_path, clean, lonely)


def test_limits_follow_the_config(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(3)), photos("clean", range(10, 13))
    with pytest.raises(DataError, match="too small: 3"):
        prepare(tmp_path, rainy, clean, config=DataConfig(min_side=97))
    with pytest.raises(DataError, match="too many pixels: 3"):
        prepare(tmp_path, rainy, clean, config=DataConfig(max_pixels=96 * 128 - 1))


def test_near_duplicates_are_dropped_and_the_largest_kept(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(3), height=192, width=256), photos("clean", range(10, 13))
    image = Image.fromarray(photo(1, 192, 256))
    image.resize((128, 96)).save(rainy / "000-small.png")
    image.save(rainy / "again.jpg", quality=60)
    ImageOps.mirror(image).save(rainy / "mirrored.png")
    manifest = prepare(tmp_path, rainy, clean, config=DataConfig(duplicate_bits=24))
    assert {(item.name, item.kept) for item in manifest.duplicates} == {
        ("000-small.png", "001.png"), ("again.jpg", "001.png"), ("mirrored.png", "001.png"),
    }  # fmt: skip
    assert [record.name for record in manifest.select("rainy")] == ["000.png", "001.png", "002.png"]


def test_rain_on_one_scene_is_no_duplicate_but_never_in_two_splits(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(4)), photos("clean", range(10, 13))
    for seed in range(4):
        Image.fromarray(photo(seed)[1:, 2:]).save(rainy / f"{seed}-cropped.png")
    manifest = prepare(tmp_path, rainy, clean, config=DataConfig(validation_fraction=0.3))
    assert len(manifest.select("rainy")) == 8 and not manifest.duplicates
    scenes = [{record.name.strip("0")[0] for record in manifest.select("rainy", s)} for s in ("train", "validation")]
    assert len(manifest.select("rainy", "validation")) == 2 and not scenes[0] & scenes[1]


def test_split_depends_on_content_and_seed_alone(tmp_path: Path, photos: Photos) -> None:
    clean = photos("clean", range(100, 103))

    def held_back(folder: str, names: str, seed: int) -> set[str]:
        config = DataConfig(validation_fraction=0.4, seed=seed)
        manifest = prepare(tmp_path, photos(folder, range(10), names), clean, config=config)
        return {record.id for record in manifest.select("rainy", "validation")}

    splits = [held_back("one", "{:03}.png", seed) for seed in range(4)]
    assert [held_back("two", "x{}.bmp", seed) for seed in range(4)] == splits
    assert all(len(split) == 4 for split in splits) and len(set(map(frozenset, splits))) > 1


def test_one_scene_only_is_split_with_a_warning(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = tmp_path / "rainy", photos("clean", range(10, 13))
    rainy.mkdir()
    for frame in range(4):
        view = photo(1, 120, 160)[frame : 100 + frame, 2 * frame : 130 + 2 * frame]
        Image.fromarray(view).save(rainy / f"{frame}.png")
    manifest = prepare(tmp_path, rainy, clean, config=DataConfig(duplicate_bits=0))
    assert [len(manifest.select("rainy", split)) for split in ("train", "validation")] == [3, 1]
    assert "rainy: all images show one scene, so training and validation share it" in manifest.warnings


def test_clean_image_of_an_evaluation_scene_is_refused(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(3)), photos("clean", range(10, 14))
    rain_on(photos("pairs/clean", [20, 21], height=192, width=256), tmp_path / "pairs" / "rain")
    Image.open(tmp_path / "pairs" / "clean" / "020.png").resize((128, 96)).save(clean / "of-clean.webp")
    ImageOps.mirror(Image.open(tmp_path / "pairs" / "rain" / "021.png")).save(clean / "of-rain.png")
    manifest = prepare(tmp_path, rainy, clean, tmp_path / "pairs")
    assert {item.name for item in manifest.quarantined} == {"of-clean.webp", "of-rain.png"}
    assert all(item.reason.startswith("leak: the scene of the evaluation image") for item in manifest.quarantined)
    assert [record.name for record in manifest.select("clean")] == [f"0{n}.png" for n in range(10, 14)]
    assert len(manifest.pairs) == 2 and not manifest.transductive()


def test_pairs_that_are_also_trained_on_are_transductive(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = rain_on(photos("pairs/clean", range(6)), tmp_path / "pairs" / "rain"), photos("clean", range(10, 14))
    facts = prepare_dataset(CONFIG, str(rainy), str(clean), str(tmp_path / "pairs"), tmp_path / "out")
    manifest = Manifest.model_validate_json((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest.transductive() == {record.id for record in manifest.select("rainy", "train")}
    assert (facts["pairs"], facts["transductive"], facts["rainy_validation"]) == (6, 5, 1)
    assert any(warning.startswith("transductive: 5 of 6 evaluation pairs") for warning in facts["warnings"])
    by_id = {record.id: record for record in manifest.images}
    for pair in manifest.pairs:
        assert by_id[pair.rainy].name in (f"{pair.name}.png", f"rain/{pair.name}.png")
        assert by_id[pair.clean].name == f"clean/{pair.name}.png"
    stored = {path.stem for path in (tmp_path / "out" / "images").iterdir()}
    assert stored == set(by_id) and len(stored) == 6 + 6 + 4


def test_clean_folder_of_the_pairs_is_refused_whole(tmp_path: Path, photos: Photos) -> None:
    rain_on(photos("pairs/clean", range(3)), tmp_path / "pairs" / "rain")
    with pytest.raises(DataError, match=r"only 0 usable clean images.*leak: 3 "):
        prepare(tmp_path, photos("rainy", range(10, 13)), tmp_path / "pairs" / "clean", tmp_path / "pairs")


def test_clean_images_of_rainy_scenes_are_told(tmp_path: Path, photos: Photos) -> None:
    clean = photos("clean", range(3))
    manifest = prepare(tmp_path, rain_on(clean, tmp_path / "rainy"), clean)
    assert manifest.warnings == (
        "not fully unpaired: 3 clean images show a rainy scene, such as 000.png and 000.png",
    )  # fmt: skip


def test_pairs_of_unequal_size_or_without_use(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(3)), photos("clean", range(10, 13))
    rain_on(photos("pairs/clean", [20, 21]), tmp_path / "pairs" / "rain")
    Image.fromarray(photo(21, 96, 127)).save(tmp_path / "pairs" / "clean" / "021.png")
    with pytest.raises(DataError, match=r"different size: 021 \(128x96 rainy, 127x96 clean\)"):
        prepare(tmp_path, rainy, clean, tmp_path / "pairs")
    (tmp_path / "pairs" / "clean" / "021.png").write_bytes(b"broken")
    manifest = prepare(tmp_path, rainy, clean, tmp_path / "pairs")
    assert [pair.name for pair in manifest.pairs] == ["020"] and len(manifest.select("paired_rainy")) == 1
    assert "1 of 2 pairs are not evaluated, as one side could not be used" in manifest.warnings
    (tmp_path / "pairs" / "clean" / "020.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"not one of 2 pairs is usable \(not an image: 2"):
        prepare(tmp_path, rainy, clean, tmp_path / "pairs")


def test_source_digest(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(2)), photos("clean", range(10, 12))
    before = source_digest(str(rainy), str(clean), None)
    moved = shutil.copytree(rainy, tmp_path / "moved")
    assert source_digest(f"{moved}/", str(clean), None) == before
    assert source_digest(str(clean), str(rainy), None) != before
    photos("rainy", [2])
    assert source_digest(str(rainy), str(clean), None) != before


def test_copies_of_one_folder_are_refused(tmp_path: Path, photos: Photos) -> None:
    rainy, copy = photos("rainy", range(2)), photos("copy", range(2), "renamed-{}.png")
    with pytest.raises(DataError, match="hold the same 2 files"):
        source_digest(str(rainy), str(copy), None)


def test_second_run_changes_nothing(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(4)), photos("clean", range(10, 14))
    prepare(tmp_path, rainy, clean)
    before = tree(tmp_path / "out")
    prepare(tmp_path, rainy, clean)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("victim", [3, 6, 9, 10])
def test_killed_while_writing_then_run_again(tmp_path: Path, photos: Photos, victim: int) -> None:
    """SIGKILL between the writing and the renaming of the n-th file: pictures 1 to 8, report 9, manifest 10."""
    rainy, clean = photos("rainy", range(4)), photos("clean", range(10, 14))
    program = f"""
import os, signal
from pathlib import Path
from rgsud_lib.config import DataConfig
from rgsud_lib.data.prepare import prepare_dataset
replace, calls = os.replace, []
def deadly(*paths):
    calls.append(paths)
    if len(calls) == {victim}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = deadly
prepare_dataset(DataConfig(), {str(rainy)!r}, {str(clean)!r}, None, Path({str(tmp_path / "out")!r}))
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    prepare(tmp_path, rainy, clean)
    killed = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    prepare(tmp_path, rainy, clean)
    undisturbed = tree(tmp_path / "out")
    assert {name: digest for name, digest in killed.items() if not Path(name).name.startswith(".")} == undisturbed


def test_real_images(tmp_path: Path, shared_data: Path) -> None:
    for role, source, count in (("rainy", "rain100L/rain", 12), ("clean", "clean_bsds", 12)):
        (tmp_path / role).mkdir()
        for path in sorted((shared_data / source).iterdir())[:count]:
            (tmp_path / role / path.name).symlink_to(path)
    leak = sorted((shared_data / "rain100L" / "clean").iterdir())[0]
    (tmp_path / "clean" / "leak.png").symlink_to(leak)
    manifest = prepare(tmp_path, tmp_path / "rainy", tmp_path / "clean", shared_data / "rain100L")
    assert [item.name for item in manifest.quarantined] == ["leak.png"]
    assert len(manifest.pairs) == 50 and len(manifest.select("clean")) == 12
    trained = {record.name for record in manifest.select("rainy", "train")}
    assert trained <= {Path(r.name).name for r in manifest.images if r.id in manifest.transductive()}
