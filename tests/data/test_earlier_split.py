"""A dataset that follows an earlier one: nothing trained on is held back, nothing held back is trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.config import DataConfig
from rgsud_lib.data.curation import split_scenes
from rgsud_lib.data.manifest import ImageRecord, Manifest
from rgsud_lib.data.prepare import prepare_dataset
from rgsud_lib.errors import DataError

from .conftest import photo

Photos = Callable[..., Path]
BITS = 72


def record(index: int, words: np.ndarray | None = None) -> ImageRecord:
    """An image of a scene of its own, or of the hash given."""
    hashed = np.random.default_rng(index).bytes(32) if words is None else words.tobytes()
    return ImageRecord(
        id=f"{index:016x}", role="rainy", split="train", name=f"{index}.png", source_digest="", height=64, width=64,
        phash=hashed.hex(),
    )  # fmt: skip


def bits(index: int, *flipped: range) -> np.ndarray:
    """The hash of `record(index)` with some of its 256 bits turned over."""
    flat = np.unpackbits(np.frombuffer(np.random.default_rng(index).bytes(32), np.uint8))
    for part in flipped:
        flat[list(part)] ^= 1
    return np.packbits(flat)


def sides(records: list[ImageRecord]) -> dict[str, str]:
    return {item.id: item.split for item in records}


@pytest.mark.parametrize("seed", range(6))
def test_new_images_move_no_earlier_one(seed: int) -> None:
    first, _ = split_scenes([record(index) for index in range(20)], 0.2, BITS, seed)
    grown, _ = split_scenes([record(index) for index in range(60)], 0.2, BITS, seed, first)
    assert sides(first).items() <= sides(grown).items()
    assert sum(item.split == "validation" for item in grown) == 12


def test_without_the_earlier_split_images_do_move() -> None:
    """Why the earlier split must be given: the share that is held back is filled anew in the order of a hash."""
    moved = 0
    for seed in range(6):
        first, _ = split_scenes([record(index) for index in range(20)], 0.2, BITS, seed)
        grown, _ = split_scenes([record(index) for index in range(60)], 0.2, BITS, seed)
        moved += len(sides(first).items() - sides(grown).items())
    assert moved > 0


def test_a_new_view_goes_where_its_scene_is_and_one_between_two_scenes_to_the_nearer() -> None:
    first, _ = split_scenes([record(index) for index in range(10)], 0.2, BITS, 0)
    held = next(int(item.id, 16) for item in first if item.split == "validation")
    views = [record(100, bits(held, range(40))), record(101, bits(held, range(30), range(100, 130)))]
    grown, _ = split_scenes([*first, *views], 0.2, BITS, 0, first)
    assert [item.split for item in grown[-2:]] == ["validation", "validation"]
    one, other = record(1), record(2, bits(1, range(100)))
    earlier = [one.model_copy(update={"split": "validation"}), other.model_copy(update={"split": "train"})]
    between = record(3, bits(1, range(60)))  # 60 bits from the one, 40 from the other
    grown, _ = split_scenes([one, other, between], 0.4, BITS, 0, earlier)
    assert [item.split for item in grown] == ["validation", "train", "train"]


def test_a_larger_share_is_reached_with_new_images_only() -> None:
    first, _ = split_scenes([record(index) for index in range(10)], 0.1, BITS, 0)
    same, _ = split_scenes([record(index) for index in range(10)], 0.4, BITS, 0, first)
    assert sides(same) == sides(first)
    grown, _ = split_scenes([record(index) for index in range(15)], 0.4, BITS, 0, first)
    assert sum(item.split == "validation" for item in grown) == 6


@pytest.mark.parametrize(("side", "what"), [("train", "hold back"), ("validation", "train on")])
def test_nothing_left_for_one_side_is_an_error(side: str, what: str) -> None:
    earlier = [record(index).model_copy(update={"split": side}) for index in range(4)]
    with pytest.raises(DataError, match=f"no rainy image is left to {what}.*or start anew with --set retraining.keep"):
        split_scenes([record(index) for index in range(4)], 0.25, BITS, 0, earlier)


def test_one_scene_is_cut_through_once_and_stays_so() -> None:
    views = [record(index, bits(7, range(4 * index, 4 * index + 8))) for index in range(12)]
    first, whole = split_scenes(views[:8], 0.25, BITS, 0)
    grown, still = split_scenes(views, 0.25, BITS, 0, first)
    assert not whole and not still
    assert sides(first).items() <= sides(grown).items()


def prepared(
    tmp_path: Path, rainy: Path, clean: Path, earlier: Manifest | None, paired: Path | None = None
) -> Manifest:
    folder = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    folder.mkdir()
    paths = str(rainy), str(clean), paired and str(paired)
    prepare_dataset(DataConfig(validation_fraction=0.3), *paths, folder, earlier)
    return Manifest.model_validate_json((folder / "manifest.json").read_bytes())


def test_the_side_of_an_image_outlives_its_absence(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(8)), photos("clean", range(100, 104))
    first = prepared(tmp_path, rainy, clean, None)
    chosen = [first.select("rainy", "train")[0], first.select("rainy", "validation")[0]]
    for item in chosen:
        (rainy / item.name).rename(tmp_path / item.name)
    second = prepared(tmp_path, photos("rainy", range(20, 24)), clean, first)
    assert {item.id for item in second.retired} == {item.id for item in chosen}
    for item in chosen:
        (tmp_path / item.name).rename(rainy / item.name)
    third = prepared(tmp_path, photos("rainy", range(30, 40)), clean, second)
    known, now = sides([*second.images, *second.retired]), sides([*third.images])
    assert known.items() <= now.items() and not third.retired
    assert len(third.select("rainy")) == 22


def test_the_same_images_give_the_same_manifest(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(8)), photos("clean", range(100, 104))
    first = prepared(tmp_path, rainy, clean, None)
    assert prepared(tmp_path, rainy, clean, first) == first


def test_a_pair_of_a_scene_once_trained_on_is_transductive(tmp_path: Path, photos: Photos) -> None:
    rainy, clean = photos("rainy", range(6)), photos("clean", range(100, 104))
    first = prepared(tmp_path, rainy, clean, None)
    gone = first.select("rainy", "train")[0]
    for side in ("rain", "clean"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        Image.fromarray(photo(int(gone.name[:3]))).save(tmp_path / "pairs" / side / "a.png")
    (rainy / gone.name).unlink()
    pairs = tmp_path / "pairs"
    assert prepared(tmp_path, rainy, clean, None, pairs).transductive() == set()
    assert prepared(tmp_path, rainy, clean, first, pairs).transductive() == {gone.id}
