"""A right copy passes; a wrong count, a missing pair, another size, damage and a leak each fail, and say what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.data.published import PublishedSet, published_set
from rgsud_lib.data.published_check import check_copy
from rgsud_lib.errors import DataError
from rgsud_lib.storage import s3

from .conftest import photo

TOY = PublishedSet.model_validate(
    {
        "name": "Toy",
        "kind": "synthetic",
        "splits": [{"folder": "train", "images": 4}, {"folder": "test", "images": 2}],
        "sizes": [[128, 96]],
        "naming": "rain-1.png and norain-1.png",
        "paper": "none",
        "home": "https://example.org/toy",
        "pitfalls": ["it is a toy"],
    }
)
REAL = TOY.model_copy(update={"splits": published_set("SIRR").splits, "sizes": ()})


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A right copy in the published naming: scenes 0 to 3 to train on, 4 and 5 held out, one of them upright."""
    for seed in range(6):
        folder, image = tmp_path / "Toy" / ("train" if seed < 4 else "test"), photo(seed)
        image = np.rot90(image) if seed == 5 else image
        save(folder / "clean" / f"norain-{seed}.png", image)
        rain = np.zeros(image.shape, np.uint8)
        rain[:, ::11] = 60
        save(folder / "rain" / f"rain-{seed}.png", image // 2 + rain + image // 4)
    return tmp_path / "Toy"


def found(published: PublishedSet, folder: Path, *train: Path) -> dict[str, tuple[str, str]]:
    findings = check_copy(published, str(folder), [str(other) for other in train])
    assert len({finding.check for finding in findings}) == len(findings)
    return {finding.check: (finding.status, finding.message) for finding in findings}


def failures(*given: object) -> dict[str, str]:
    return {check: message for check, (status, message) in found(*given).items() if status != "ok"}


def test_a_right_copy_passes_and_says_what_was_seen(copy: Path) -> None:
    findings = found(TOY, copy)
    assert {status for status, _ in findings.values()} == {"ok"}
    assert findings["train count"][1] == "4 pairs, as published"
    assert findings["test scenes"][1] == "2 images show 2 scenes"
    assert findings["train against test"][1] == "no scene of test in 4 images"


def test_other_spellings_of_the_folders(copy: Path) -> None:
    (copy / "test").rename(copy / "Testing")
    (copy / "train").rename(copy / "train_set")
    (copy / "train_set" / "clean").rename(copy / "train_set" / "gt")
    assert failures(TOY, copy) == {}


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("test", 2)])
def test_one_split_alone_is_known_by_its_folder(copy: Path, split: str, count: int) -> None:
    findings = found(TOY, copy / split)
    assert findings[f"{split} count"] == ("ok", f"{count} pairs, as published")
    other = {"train": "test", "test": "train"}[split]
    assert findings[other][0] == "warn" and "not in this copy" in findings[other][1]


def test_wrong_count(copy: Path) -> None:
    for side in ("rain/rain", "clean/norain"):
        (copy / "train" / f"{side}-0.png").unlink()
    assert failures(TOY, copy) == {
        "train count": "3 pairs, published: 4 pairs; numbers do not compare with published ones; "
        "complete it, or say which part of the set it is"
    }


def test_a_count_that_is_only_reported_warns(copy: Path) -> None:
    splits = tuple(split.model_copy(update={"images": 9, "sure": False}) for split in TOY.splits)
    findings = found(TOY.model_copy(update={"splits": splits}), copy)
    assert findings["test count"][0] == "warn" and "published: about 9 pairs" in findings["test count"][1]


def test_missing_pair(copy: Path) -> None:
    (copy / "test" / "clean" / "norain-4.png").unlink()
    failed = failures(TOY, copy)
    assert list(failed) == ["test pairs"]
    assert "only rainy: rain-4" in failed["test pairs"]
    assert "naming: rain-1.png and norain-1.png" in failed["test pairs"]


def test_wrong_and_unequal_sizes(copy: Path) -> None:
    for side in ("rain/rain", "clean/norain"):
        save(copy / "train" / f"{side}-0.png", photo(0, 48, 64))
    assert (
        "published: 128 x 96; others: clean/norain-0.png (64 x 48), rain/rain-0.png (64 x 48)"
        in failures(TOY, copy)["train sizes"]
    )
    save(copy / "train" / "rain" / "rain-0.png", photo(0))
    free = TOY.model_copy(update={"sizes": ()})
    assert "pairs of unequal size: 0 (128 x 96 rainy, 64 x 48 clean)" in failures(free, copy)["train sizes"]


def test_damaged_file(copy: Path) -> None:
    (copy / "test" / "rain" / "rain-4.png").write_bytes(b"not a picture")
    failed = failures(TOY, copy)
    assert list(failed) == ["test files"] and "rain/rain-4.png (not an image" in failed["test files"]


def test_leak_within_the_copy_though_smaller_and_recoded(copy: Path) -> None:
    leaked = Image.fromarray(photo(4)).resize((64, 48))
    for side in ("rain/rain", "clean/norain"):
        (copy / "train" / f"{side}-0.png").unlink()
        leaked.save(copy / "train" / f"{side}-0.jpg", quality=60)
    free = TOY.model_copy(update={"sizes": ()})
    failed = failures(free, copy)
    assert list(failed) == ["train against test"]
    message = "1 of 4 images show a scene of test: clean/norain-0.jpg shows clean/norain-4.png; leave them out"
    assert message in failed["train against test"]


def test_leak_into_another_folder(copy: Path, photos: Callable[..., Path]) -> None:
    apart, leaky = photos("apart", [30, 31]), photos("leaky", [30, 5])
    assert failures(TOY, copy, apart) == {}
    assert "shows" not in str(failures(TOY, copy, apart))
    assert list(failures(TOY, copy, photos("leaky", [4]))) == [f"{leaky} against test"]


def test_shuffled_names_warn(copy: Path) -> None:
    for seed in (0, 1, 2, 3):
        save(copy / "train" / "rain" / f"rain-{seed}.png", photo(40 + seed))
    findings = found(TOY, copy)
    assert findings["train content"][0] == "warn"
    assert "4 of 4 rainy images do not look like their clean ones" in findings["train content"][1]


def test_a_set_without_clean_images(photos: Callable[..., Path]) -> None:
    folder = photos("real", range(3))
    assert found(REAL, folder)["real count"][0] == "warn"
    assert list(failures(REAL, folder, photos("mine", [2]))) == ["real count", f"{folder.parent / 'mine'} against real"]


def test_a_copy_in_s3(copy: Path, s3_bucket: str) -> None:
    bucket = s3_bucket.removeprefix("s3://")
    for path in copy.rglob("*.png"):
        s3.client().upload_file(str(path), bucket, path.relative_to(copy.parent).as_posix())
    assert {finding.status for finding in check_copy(TOY, f"{s3_bucket}/Toy/")} == {"ok"}
    with pytest.raises(DataError, match="no copy of Toy in s3://.*found no images"):
        check_copy(TOY, f"{s3_bucket}/Other")


@pytest.mark.parametrize("kind", ["absent", "empty", "flat"])
def test_no_copy_says_which_folder_and_layout(tmp_path: Path, kind: str) -> None:
    if kind != "absent":
        (tmp_path / "here").mkdir()
    if kind == "flat":
        save(tmp_path / "here" / "1.png", photo(1))
    with pytest.raises(DataError, match="no copy of Toy in .*here") as refused:
        check_copy(TOY, str(tmp_path / "here"))
    assert {"absent": "no such folder", "empty": "no images", "flat": "at the top 1.png"}[kind] in str(refused.value)
    assert "Toy/test/rain/NAME.png   2 pairs, rainy" in str(refused.value)
    assert "https://example.org/toy" in str(refused.value)


def test_half_of_rain100l_and_what_may_not_be_trained_on_beside_it(shared_data: Path) -> None:
    findings = found(published_set("Rain100L"), shared_data / "rain100L", shared_data / "clean_bsds")
    assert findings["test count"][0] == "fail" and "50 pairs, published: 100 pairs" in findings["test count"][1]
    assert findings["test sizes"] == ("ok", "as published")
    assert "50 images show 41 scenes" in findings["test scenes"][1]
    assert findings[f"{shared_data / 'clean_bsds'} against test"][0] == "ok"
    heavy = shared_data / "rain100H" / "rain"
    assert findings.keys() == {"train", "test pairs", "test count", "test sizes", "test scenes"} | {
        f"{shared_data / 'clean_bsds'} against test"
    }
    leaks = failures(published_set("Rain100L"), shared_data / "rain100L", heavy)
    assert "images show a scene of test" in leaks[f"{heavy} against test"]
