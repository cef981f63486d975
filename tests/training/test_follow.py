"""Stage 1 that starts from an earlier model: what it takes over and refuses; a killed one ends the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.config import Config, parse_config
from rgsud_lib.errors import BundleError
from rgsud_lib.retraining.last_model import model_to_follow
from rgsud_lib.stages import recycle
from rgsud_lib.tracking import StageRun
from rgsud_lib.training import trainer
from rgsud_lib.training.curves import read_log
from rgsud_lib.training.run import train_recycle


class Killed(BaseException):
    """Stands for kill -9."""


def changed(config: Config, **sections: dict[str, object]) -> Config:
    tree = config.model_dump(mode="json")
    for name, values in sections.items():
        tree[name] |= values
    return parse_config(tree)


def following(config: Config, **retraining: bool) -> Config:
    return changed(config, retraining={"keep_split": True, **retraining})


def train(config: Config, dataset: Path, folder: Path, reinforced: Path | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train_recycle(config, dataset, folder, StageRun(), reinforced)
    return folder


@pytest.fixture(scope="module")
def last(tiny: Config, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An earlier model; a stage 1 has the files of a stage 2. Its pool knows an image that is gone."""
    folder = train(tiny, dataset, tmp_path_factory.mktemp("last") / "reinforced")
    index = json.loads((folder / "pool" / "index.json").read_text())
    index["entries"]["gone"] = next(iter(index["entries"].values()))
    (folder / "pool" / "index.json").write_text(json.dumps(index))
    seal(folder, "reinforced", "0")
    return folder


@pytest.fixture(scope="module")
def both(tiny: Config) -> Config:
    return following(tiny, warm_start_from_champion=True, reuse_pool=True)


@pytest.fixture(scope="module")
def followed(both: Config, dataset: Path, last: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(both, dataset, tmp_path_factory.mktemp("followed") / "recycled", last)


def test_networks_take_the_place_of_the_drawn_rain(followed: Path, last: Path) -> None:
    assert {row["phase"] for row in read_log(followed / "log.jsonl")} == {"recycle"}
    start, before = load_file(followed / "warm_start.safetensors"), load_file(last / "derainer.safetensors")
    assert start.keys() == before.keys()
    assert all(torch.equal(start[name], before[name]) for name in start)
    end = load_file(followed / "derainer.safetensors")
    assert any(not torch.equal(end[name], before[name]) for name in end)


def test_rewards_of_images_still_there_go_on_and_only_get_better(followed: Path, last: Path) -> None:
    before = json.loads((last / "pool" / "index.json").read_text())["entries"]
    after = json.loads((followed / "pool" / "index.json").read_text())["entries"]
    assert after.keys() == before.keys() - {"gone"}
    for image, entry in after.items():
        assert entry["score"] >= before[image]["score"]
        assert entry["offered"] > before[image]["offered"]
        assert entry["first_score"] == before[image]["first_score"]


def test_rewards_alone_leave_the_warm_start_as_it_is(tiny: Config, dataset: Path, last: Path, tmp_path: Path) -> None:
    folder = train(following(tiny, reuse_pool=True), dataset, tmp_path / "recycled", last)
    assert {row["phase"] for row in read_log(folder / "log.jsonl")} == {"warm_start", "recycle"}
    index = json.loads((last / "pool" / "index.json").read_text())
    own = json.loads((folder / "pool" / "index.json").read_text())["entries"]
    assert all(entry["score"] >= index["entries"][image]["score"] for image, entry in own.items())


def test_a_killed_one_ends_in_the_same_bytes(
    both: Config, dataset: Path, last: Path, followed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, save = 0, trainer.save_checkpoint

    def dying(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        save(*arguments)
        if calls == 2:
            raise Killed

    folder = tmp_path / "recycled"  # the name is the resume key
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer, "save_checkpoint", dying)
        train(both, dataset, folder, last)
    train(both, dataset, folder, last)
    for name in ("derainer.safetensors", "networks.safetensors", "warm_start.safetensors", "pool/index.json"):
        assert (folder / name).read_bytes() == (followed / name).read_bytes(), name


def test_networks_of_other_sizes_are_refused(both: Config, dataset: Path, last: Path, tmp_path: Path) -> None:
    wider = changed(both, derainer={"width": 8})
    with pytest.raises(BundleError, match="are of other sizes than this configuration's.*or train from the start"):
        train(wider, dataset, tmp_path / "recycled", last)


def exported(workdir: Path, dataset: Path, reinforced: Path, name: str) -> None:
    """Bundles of a finished run in a workdir: an earlier dataset, stage 2 and an export that names both."""
    stages = workdir / "stages"
    shutil.copytree(dataset, stages / f"prepare-{name}")
    (stages / f"prepare-{name}" / "extra.txt").write_text(name)
    earlier = seal(stages / f"prepare-{name}", "dataset", "0", {"sources": name})
    shutil.copytree(reinforced, stages / f"reinforce-{name}")
    (stages / f"reinforce-{name}" / "extra.txt").write_text(name)
    model = seal(stages / f"reinforce-{name}", "reinforced", "0", {"dataset": earlier.digest})
    (stages / f"export-{name}").mkdir()
    (stages / f"export-{name}" / "name").write_text(name)
    seal(stages / f"export-{name}", "export", "0", {"dataset": earlier.digest, "reinforced": model.digest})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """Stage 1 without training; tells what each started from."""
    started: list[Path | None] = []

    def record(config: Config, dataset: Path, folder: Path, run: StageRun, reinforced: Path | None) -> dict[str, float]:
        started.append(reinforced)
        return {}

    monkeypatch.setenv("RGSUD_TRACKING", "off")
    monkeypatch.setattr("rgsud_lib.training.run.train_recycle", record)
    return started


def test_what_it_starts_from_is_part_of_the_key(
    tiny: Config, both: Config, dataset: Path, last: Path, tmp_path: Path, quick: list[Path | None]
) -> None:
    again = changed(both, training={"seed": 1})
    nothing = recycle(both, dataset, tmp_path)
    exported(tmp_path, dataset, last, "a")
    assert recycle(both, dataset, tmp_path) == nothing, "a run that is repeated finds its own results"
    after_a = recycle(again, dataset, tmp_path)
    exported(tmp_path, dataset, last, "b")
    assert recycle(again, dataset, tmp_path) == after_a
    after_b = recycle(changed(both, training={"seed": 2}), dataset, tmp_path)
    shutil.rmtree(tmp_path / "stages" / "reinforce-a")
    anew = recycle(again, dataset, tmp_path)
    assert recycle(tiny, dataset, tmp_path) not in (nothing, after_a, after_b, anew)
    assert len({nothing, after_a, after_b, anew}) == 4
    starts = [None, "reinforce-a", "reinforce-b", "reinforce-b", None]
    assert [start and start.name for start in quick] == starts
    assert open_bundle(after_b).inputs == {
        "dataset": open_bundle(dataset).digest,
        "reinforced": open_bundle(tmp_path / "stages" / "reinforce-b").digest,
    }


def test_a_model_of_this_very_dataset_is_passed_over(both: Config, dataset: Path, last: Path, tmp_path: Path) -> None:
    """Or else a run that is repeated would start from its own end and train again."""
    exported(tmp_path, dataset, last, "a")
    own = tmp_path / "stages" / "prepare-a"
    assert model_to_follow(both, own, tmp_path) is None
    assert model_to_follow(both, dataset, tmp_path) == tmp_path / "stages" / "reinforce-a"


def test_images_that_the_last_model_was_trained_on_are_not_held_back(
    both: Config, dataset: Path, last: Path, tmp_path: Path
) -> None:
    exported(tmp_path, dataset, last, "a")
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    manifest = (other / "manifest.json").read_text()
    swapped = manifest.replace('"train"', '"x"').replace('"validation"', '"train"').replace('"x"', '"validation"')
    (other / "manifest.json").write_text(swapped)
    seal(other, "dataset", "0")
    with pytest.raises(BundleError, match="images that .* holds back, such as .*keep_split=true"):
        model_to_follow(both, other, tmp_path)
