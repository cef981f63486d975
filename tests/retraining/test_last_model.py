"""Which model is the last one, and that `prepare` keeps its split and finds its own results again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.config import Config, load_config
from rgsud_lib.errors import BundleError
from rgsud_lib.retraining.last_model import last_models
from rgsud_lib.retraining.new_data import check_new_data
from rgsud_lib.stages import prepare
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import SourceFile
from rgsud_lib.storage.remote import open_anywhere

SETTINGS = ["critic.enabled=false", "reward.scorer=rain_layer", "data.validation_fraction=0.3"]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    for folder, seeds in (("rain", range(8)), ("clean", range(50, 53))):
        add(tmp_path / folder, seeds)
    return tmp_path


def add(folder: Path, seeds: range) -> None:
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((80, 72), Image.Resampling.BICUBIC).save(folder / f"{seed:02}.png")


def prepared(root: Path, *settings: str) -> Path:
    config: Config = load_config("demo", [*SETTINGS, *settings])
    return prepare(config, str(root / "rain"), str(root / "clean"), None, root / "runs")


def finish(dataset: Path, name: str, age: float = 0) -> None:
    """Stage 2 and the export of a model that was trained on a dataset, `age` seconds ago."""
    stages, digest = dataset.parent, open_bundle(dataset).digest
    for kind in ("reinforce", "export"):
        (stages / f"{kind}-{name}").mkdir()
    (stages / f"reinforce-{name}" / "name").write_text(name)
    model = seal(stages / f"reinforce-{name}", "reinforced", "0", {"dataset": digest})
    (stages / f"export-{name}" / "name").write_text(name)
    seal(stages / f"export-{name}", "export", "0", {"dataset": digest, "reinforced": model.digest})
    marker = stages / f"export-{name}" / "bundle.json"
    os.utime(marker, (marker.stat().st_mtime - age,) * 2)


def test_models_come_newest_first_and_only_whole(images: Path) -> None:
    dataset = prepared(images)
    assert last_models(images / "runs") == []
    for name, age in (("old", 300), ("new", 100), ("lost", 0)):
        finish(dataset, name, age)
    shutil.rmtree(images / "runs" / "stages" / "reinforce-lost")
    models = last_models(images / "runs")
    assert [model.reinforced.path.name for model in models] == ["reinforce-new", "reinforce-old"]
    assert {model.dataset.path for model in models} == {dataset}
    assert models[1].exported == pytest.approx(models[0].exported - 200, abs=60)
    assert len(models[0].manifest().select("rainy")) == 8


def sides(dataset: Path) -> dict[str, str]:
    return {image["id"]: image["split"] for image in json.loads((dataset / "manifest.json").read_text())["images"]}


def test_prepare_keeps_the_split_where_it_is_told_to(images: Path) -> None:
    first = prepared(images)
    finish(first, "a")
    add(images / "rain", range(8, 24))
    plain, kept = prepared(images), prepared(images, "retraining.keep_split=true")
    assert sides(first).items() <= sides(kept).items()
    assert open_bundle(kept).inputs["earlier"] == open_bundle(first).digest
    assert "earlier" not in open_bundle(plain).inputs
    assert kept != plain


def test_a_repeated_run_finds_its_own_dataset_again(images: Path) -> None:
    finish(prepared(images), "a")
    assert "earlier" not in open_bundle(prepared(images, "retraining.keep_split=true")).inputs
    add(images / "rain", range(8, 12))
    second = prepared(images, "retraining.keep_split=true")
    finish(second, "b")
    assert prepared(images, "retraining.keep_split=true") == second


class Aliased:
    """A registry whose champion comes from the export with this digest."""

    def __init__(self, export_digest: str) -> None:
        self.version = SimpleNamespace(version="7", tags={"rgsud.export_digest": export_digest})

    def aliases(self) -> dict[str, str]:
        return {"champion": "7"}

    def find(self, which: str) -> SimpleNamespace:
        assert which == "champion"
        return self.version


@pytest.fixture
def champion(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """champion(digest) makes the export with that digest the registry's champion."""

    def make(digest: str) -> None:
        monkeypatch.setattr("rgsud_lib.registry.unavailable", lambda: "")
        monkeypatch.setattr("rgsud_lib.registry.Registry.open", lambda workdir: Aliased(digest))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nowhere.invalid")

    return make


def test_the_champion_comes_before_newer_exports(images: Path, champion: Callable[[str], None]) -> None:
    dataset = prepared(images)
    for name, age in (("old", 300), ("new", 100)):
        finish(dataset, name, age)
    champion(last_models(images / "runs")[1].export_digest)
    models = last_models(images / "runs")
    assert [model.reinforced.path.name for model in models] == ["reinforce-old", "reinforce-new"]
    assert models[0].name == "champion, rgsud version 7"


def test_a_run_that_is_repeated_after_its_promotion_keeps_what_it_kept(images: Path, champion) -> None:
    """Champion A, held B; C follows A, and does so when it is the champion itself."""
    finish(prepared(images), "a", 300)
    champion(last_models(images / "runs")[0].export_digest)
    add(images / "rain", range(8, 12))
    finish(prepared(images, "retraining.keep_split=true"), "b", 200)
    add(images / "rain", range(12, 16))
    third = prepared(images, "retraining.keep_split=true")
    finish(third, "c")
    champion(last_models(images / "runs")[1].export_digest)
    assert last_models(images / "runs")[0].reinforced.path.name == "reinforce-c"
    assert prepared(images, "retraining.keep_split=true") == third
    assert prepared(images, "retraining.keep_split=true", "data.validation_fraction=0.4") != third


def test_a_champion_of_another_workdir_is_an_error(images: Path, champion: Callable[[str], None]) -> None:
    finish(prepared(images), "a")
    champion("0123")
    with pytest.raises(BundleError, match="version 7 comes from export 0123, which is not in .*where it was trained"):
        last_models(images / "runs")


def test_new_images_are_told_by_the_champions_manifest(images: Path, champion: Callable[[str], None]) -> None:
    config = load_config("demo", [*SETTINGS, "new_data.min_new_images=4"])
    runs, page = images / "runs", images / "page.html"
    finish(prepared(images), "a", 100)
    add(images / "rain", range(8, 14))
    finish(prepared(images), "b")
    assert check_new_data(config, str(images / "rain"), runs, page).reasons == ("no new images",)
    champion(last_models(runs)[1].export_digest)
    held = check_new_data(config, str(images / "rain"), runs, page)
    assert held.answer == "skip"
    assert held.reasons == ("export-b has learnt from all of the new images already and is not the champion",)
    add(images / "rain", range(14, 15))
    again = check_new_data(config, str(images / "rain"), runs, page)
    assert (again.answer, again.reasons[0]) == ("train", "7 new images, at least 4 are wanted")


def test_a_workdir_in_s3_is_read_where_it_is(images: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("demo", [*SETTINGS, "new_data.min_new_images=4"])
    workdir, rain = f"{s3_bucket}/runs", f"{s3_bucket}/rain"
    for path in (images / "rain").iterdir():
        transfer.write(f"{rain}/{path.name}", path.read_bytes())
    dataset = prepare(config, rain, str(images / "clean"), None, workdir)
    stages = images / "made" / "stages"
    stages.mkdir(parents=True)
    finish_remote(dataset, stages, workdir)
    (model,) = last_models(workdir)
    assert (model.dataset.path, abs(model.exported - time.time()) < 60) == (dataset, True)

    reads: list[str] = []
    original = SourceFile.read
    monkeypatch.setattr(SourceFile, "read", lambda file: (reads.append(file.name), original(file))[1])
    assert check_new_data(config, rain, workdir, images / "page.html").reasons == ("no new images",)
    assert not [name for name in reads if name.endswith(".png")]
    add(images / "rain", range(8, 14))
    for seed in range(8, 14):
        transfer.write(f"{rain}/{seed:02}.png", (images / "rain" / f"{seed:02}.png").read_bytes())
    decision = check_new_data(config, rain, workdir, images / "page.html")
    assert (decision.answer, decision.reasons[0]) == ("train", "6 new images, at least 4 are wanted")
    assert decision.novelty is not None and len(decision.novelty.known_rain) == 6


def finish_remote(dataset: str, stages: Path, workdir: str) -> None:
    digest = open_anywhere(dataset).digest
    (stages / "reinforce-r").mkdir()
    (stages / "reinforce-r" / "name").write_text("r")
    model = seal(stages / "reinforce-r", "reinforced", "0", {"dataset": digest})
    (stages / "export-r").mkdir()
    (stages / "export-r" / "name").write_text("r")
    seal(stages / "export-r", "export", "0", {"dataset": digest, "reinforced": model.digest})
    for name in ("reinforce-r", "export-r"):
        transfer.write(f"{workdir}/stages/{name}/bundle.json", (stages / name / "bundle.json").read_bytes())
