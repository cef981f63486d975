"""New rain against a finished run: what is counted, what is decided, and on which manifest it rests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, NewDataConfig, load_config
from rgsud_lib.data.drift import Drift
from rgsud_lib.data.novelty import Novelty
from rgsud_lib.data.prepare import prepare_dataset
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.retraining.new_data import Decision, check_new_data, weigh
from rgsud_lib.tracking import StageRun


def picture(seed: int, rain: int = 60) -> np.ndarray:
    """A smooth scene of its own under upright streaks, uint8 112 x 130 x 3."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(112, 130), mode="bicubic")[0].permute(1, 2, 0)
    grain = 0.03 * torch.randn(112, 130, 1, generator=generator)
    image = ((smooth + grain).clamp(0, 1) * 255).numpy()
    image[:, seed % 5 :: 9] += rain
    return np.clip(image, 0, 255).astype(np.uint8)


def add(folder: Path, seeds: range, rain: int = 60) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        Image.fromarray(picture(seed, rain)).save(folder / f"{seed:03}.png")


class Run(NamedTuple):
    config: Config
    rainy: Path
    workdir: Path

    def check(self, *settings: str) -> Decision:
        config = load_config("demo", [*SETTINGS, *settings])
        return check_new_data(config, str(self.rainy), self.workdir, self.workdir / "new-data.html")


SETTINGS = ["critic.enabled=false", "reward.scorer=rain_layer", "new_data.min_new_images=4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rainy images and an exported model of them; nothing is trained."""
    root = tmp_path_factory.mktemp("finished")
    add(root / "rain", range(8))
    add(root / "clean", range(100, 103), rain=0)
    export(root, root / "rain", "first")
    return root


def export(root: Path, rainy: Path, name: str) -> None:
    """The bundles of a run: a real dataset, and markers of stage 2 and the export."""
    config = load_config("demo", SETTINGS)
    folders = {kind: root / "runs" / "stages" / f"{kind}-{name}" for kind in ("prepare", "reinforce", "export")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    facts = prepare_dataset(config.data, str(rainy), str(root / "clean"), None, folders["prepare"])
    dataset = seal(folders["prepare"], "dataset", "0", {"sources": name}, facts)
    for kind in ("reinforce", "export"):
        (folders[kind] / "name").write_text(name)
    reinforced = seal(folders["reinforce"], "reinforced", "0", {"dataset": dataset.digest})
    seal(folders["export"], "export", "0", {"dataset": dataset.digest, "reinforced": reinforced.digest})


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the finished run, whose images may be changed."""
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    shutil.copytree(finished, tmp_path / "copy")
    return Run(load_config("demo", SETTINGS), tmp_path / "copy" / "rain", tmp_path / "copy" / "runs")


def test_without_a_model_there_is_nothing_to_compare_with(run: Run, tmp_path: Path) -> None:
    decision = check_new_data(run.config, str(run.rainy), tmp_path / "empty", tmp_path / "page" / "report.html")
    assert (decision.answer, decision.reasons, decision.listed) == ("train", ("no model yet",), 8)
    assert "no model yet" in (tmp_path / "page" / "report.html").read_text()


def test_kfps_path_without_a_suffix_gets_the_page_too(run: Run, tmp_path: Path) -> None:
    check_new_data(run.config, str(run.rainy), run.workdir, tmp_path / "report")
    assert (tmp_path / "report").read_text() == (tmp_path / "report.html").read_text()


def test_unchanged_images_are_skipped_and_not_even_decoded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a known image was decoded")

    monkeypatch.setattr("rgsud_lib.data.reading.decode", refuse)
    decision = run.check()
    assert (decision.answer, decision.reasons) == ("skip", ("no new images",))
    assert decision.numbers()["new_data/new_images"] == 0


def test_enough_new_images_are_trained_on(run: Run) -> None:
    add(run.rainy, range(8, 12))
    decision = run.check("new_data.drift_p_value=0")
    assert (decision.answer, decision.reasons) == ("train", ("4 new images, at least 4 are wanted",))
    page = (run.workdir / "new-data.html").read_text()
    assert "4 new images, at least 4 are wanted" in page
    assert page.count("data:image/jpeg") == 4


def test_few_new_images_like_the_known_ones_wait(run: Run) -> None:
    add(run.rainy, range(8, 11))
    decision = run.check()
    assert decision.answer == "skip"
    assert decision.reasons == (
        "3 new images, fewer than 4", "too few images to test for drift", "the last model is 0 days old",
    )  # fmt: skip


def test_other_rain_is_trained_on_however_few(run: Run) -> None:
    add(run.rainy, range(8, 14), rain=160)
    decision = run.check("new_data.min_new_images=50")
    assert decision.answer == "train"
    assert decision.reasons[0].startswith("the new images differ from those trained on: drift p-value 0.00")
    found = decision.novelty
    assert found is not None and found.drift is not None
    assert min(found.new_rain) > max(found.known_rain)
    assert len(decision.numbers()) == 9


def test_an_old_model_is_replaced_where_there_is_anything_new(run: Run) -> None:
    (marker,) = run.workdir.glob("stages/export-*/bundle.json")
    os.utime(marker, (0, 0))
    assert run.check().reasons == ("no new images",)
    add(run.rainy, range(8, 9))
    decision = run.check()
    assert decision.answer == "train"
    assert "days old, more than 90, and there are new images" in decision.reasons[0]


def test_copies_of_known_pictures_and_broken_files_are_not_new(run: Run) -> None:
    Image.fromarray(picture(3)).save(run.rainy / "again.bmp")
    Image.fromarray(picture(4)).save(run.rainy / "again.jpg", quality=92)
    Image.fromarray(picture(20)).save(run.rainy / "new.png")
    Image.fromarray(picture(20)).save(run.rainy / "new-twice.webp", lossless=True)
    (run.rainy / "<b>broken.png").write_bytes(b"no picture")
    (run.rainy / "005.png").unlink()
    decision = run.check()
    found = decision.novelty
    assert found is not None
    assert [record.name for record in found.new] == ["new-twice.webp"] or [r.name for r in found.new] == ["new.png"]
    assert (found.repeats, found.gone) == (3, 1)
    assert [item.name for item in found.unreadable] == ["<b>broken.png"]
    page = (run.workdir / "new-data.html").read_text()
    assert "&lt;b&gt;broken.png" in page and "<b>broken" not in page


def test_the_same_images_give_the_same_numbers(run: Run) -> None:
    add(run.rainy, range(8, 16))
    first, second = (run.check("new_data.sample=10").novelty for _ in range(2))
    assert first is not None and second is not None
    assert first.drift == second.drift and first.new_rain == second.new_rain
    assert len(first.known_rain) <= 10 and len(first.new_rain) == 8


def test_the_newest_export_counts(run: Run) -> None:
    add(run.rainy, range(8, 12))
    assert run.check().answer == "train"
    export(run.rainy.parent, run.rainy, "second")
    assert run.check().reasons == ("no new images",)


def test_an_altered_manifest_is_refused(run: Run) -> None:
    (manifest,) = run.workdir.glob("stages/prepare-*/manifest.json")
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(BundleError, match="was altered after it was written"):
        run.check()


def test_a_prefix_without_images_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        check_new_data(run.config, str(tmp_path / "nowhere"), run.workdir, tmp_path / "report.html")


@pytest.mark.parametrize(
    ("count", "p_value", "age", "answer", "reasons"),
    [
        (0, None, 500.0, "skip", 1),
        (3, 0.5, 10.0, "skip", 3),
        (50, 0.5, 10.0, "train", 1),
        (3, 0.01, 10.0, "train", 1),
        (3, None, 91.0, "train", 1),
        (80, 0.001, 91.0, "train", 3),
    ],
)
def test_what_is_weighed(count: int, p_value: float | None, age: float, answer: str, reasons: int) -> None:
    new = tuple(range(count))
    found = Novelty(new=new, drift=Drift(0.1, 0.1, p_value, ()))  # type: ignore[arg-type]
    given, why = weigh(NewDataConfig(), found, age)
    assert (given, len(why)) == (answer, reasons)


def test_what_starts_from_the_last_model_must_keep_its_split() -> None:
    with pytest.raises(ConfigError, match="must not be held back now: add --set retraining.keep_split=true"):
        load_config("demo", ["retraining.warm_start_from_champion=true"])


def test_mlflow_gets_the_numbers_and_the_decision(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder(StageRun):
        def log_metrics(self, metrics: dict[str, float]) -> None:
            logged.update(metrics)

        def set_tags(self, tags: dict[str, str]) -> None:
            logged.update(tags)

        def log_artifact(self, path: Path, folder: str | None = None) -> None:
            logged["artifact"] = path.read_text()

    @contextmanager
    def stage_run(stage: str, *_: object) -> Iterator[StageRun]:
        logged["stage"] = stage
        yield Recorder()

    logged: dict[str, object] = {}
    monkeypatch.setattr("rgsud_lib.tracking.stage_run", stage_run)
    add(run.rainy, range(8, 9))
    decision = run.check()
    assert logged["stage"] == "new_data_check"
    assert (logged["rgsud.decision"], logged["rgsud.reasons"]) == ("skip", "; ".join(decision.reasons))
    assert logged["new_data/new_images"] == 1
    assert "<h1>Skip</h1>" in str(logged["artifact"])
