"""Which files become what: folders, globs, S3 prefixes, single files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgsud_lib.errors import DataError
from rgsud_lib.inference.jobs import plan
from rgsud_lib.storage import transfer


@pytest.fixture()
def rain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "deep/b.JPG", "deep/c.avi", "deep/d.mp4", "notes.txt", ".hidden.png"):
        (tmp_path / "rain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rain" / name).touch()
    return tmp_path / "rain"


def targets(*sources: str, target: str = "out", **options: str) -> list[str]:
    return [job.target for job in plan([str(source) for source in sources], target, **options)[0]]


def test_a_folder_keeps_its_structure_and_each_file_its_format(rain: Path) -> None:
    assert targets("rain") == ["out/a.png", "out/deep/b.JPG", "out/deep/c.mkv", "out/deep/d.mp4"]
    expected = ["out/a.webp", "out/deep/b.webp", "out/deep/c.mkv", "out/deep/d.mp4"]
    assert targets("rain", target="out/", picture_format="webp") == expected


def test_globs_and_several_sources(rain: Path) -> None:
    assert targets("rain/**/*.JPG") == ["out/deep/b.JPG"]
    assert targets("rain/*") == ["out/a.png"]
    assert targets("rain/a.png", "rain/deep") == ["out/a.png", "out/b.JPG", "out/c.mkv", "out/d.mp4"]
    (rain / "a[1].png").touch()
    assert targets("rain/a[1].png") == ["out/a[1].png"]  # a file of that name comes first


def test_one_file_to_a_file_or_into_a_folder(rain: Path) -> None:
    assert targets("rain/a.png", target="clean.jpg") == ["clean.jpg"]
    assert targets("rain/a.png", target="out") == ["out/a.png"]
    assert targets("rain/deep/c.avi", target="c.mp4") == ["c.mp4"]
    (rain / "dir.png").mkdir()
    assert targets("rain/a.png", target="rain/dir.png") == ["rain/dir.png/a.png"]
    for source, target in (("rain/a.png", "a.mp4"), ("rain/deep/d.mp4", "d.png"), ("rain/deep/d.mp4", "d.avi")):
        with pytest.raises(DataError, match="is an? (image|video) and .* is not|cannot be written; name it"):
            targets(source, target=target)


def test_what_is_there_is_refused_skipped_or_replaced(rain: Path) -> None:
    Path("out").mkdir()
    Path("out/a.png").touch()
    with pytest.raises(DataError, match=r"out/a\.png exists \(1 such files\); give --resume .* --overwrite"):
        plan(["rain"], "out")
    jobs, skipped = plan(["rain"], "out", existing="skip")
    assert (len(jobs), skipped) == (3, 1)
    jobs, skipped = plan(["rain"], "out", existing="replace")
    assert (len(jobs), skipped) == (4, 0)


def test_outputs_inside_the_source_are_no_sources(rain: Path) -> None:
    (rain / "derained").mkdir()
    (rain / "derained" / "a.png").touch()
    assert targets("rain", target="rain/derained", existing="replace") == [
        f"rain/derained/{name}" for name in ("a.png", "deep/b.JPG", "deep/c.mkv", "deep/d.mp4")
    ]


def test_refuses_what_leads_nowhere_or_loses_the_original(rain: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist; give an image"):
        plan(["nowhere"], "out")
    for nothing in ("rain/*.gif", str(rain / "empty")):
        (rain / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="no images or videos there"):
            plan([nothing], "out")
    (rain / "a.jpg").touch()
    with pytest.raises(DataError, match=r"would both become out/a\.png"):
        plan(["rain"], "out", "png")
    for source, target in (("rain", "rain"), ("rain/a.png", "rain/../rain/a.png"), ("rain/a.png", "rain")):
        with pytest.raises(DataError, match="is the original and would be lost"):
            plan([source], target, existing="replace")


def test_prefixes_in_s3(s3_bucket: str, tmp_path: Path) -> None:
    for name in ("rain/a.png", "rain/sub/b.jpg", "rain/notes.txt", "out/a.png"):
        transfer.write(f"{s3_bucket}/{name}", b"x")
    with pytest.raises(DataError, match=r"out/a\.png exists"):
        plan([f"{s3_bucket}/rain"], f"{s3_bucket}/out")
    jobs, skipped = plan([f"{s3_bucket}/rain"], f"{s3_bucket}/out/", existing="skip")
    assert ([job.target for job in jobs], skipped) == ([f"{s3_bucket}/out/sub/b.jpg"], 1)
    (tmp_path / "a.png").touch()
    jobs, skipped = plan([f"{s3_bucket}/rain"], str(tmp_path), existing="skip")
    assert ([job.target for job in jobs], skipped) == ([f"{tmp_path}/sub/b.jpg"], 1)
    assert targets(f"{s3_bucket}/rain/a.png", target=f"{s3_bucket}/new.png") == [f"{s3_bucket}/new.png"]
    with pytest.raises(DataError, match=r"out/a\.png exists"):
        plan([f"{s3_bucket}/rain/a.png"], f"{s3_bucket}/out/a.png")
    with pytest.raises(DataError, match="no images or videos there"):
        plan([f"{s3_bucket}/nothing"], f"{s3_bucket}/out")
