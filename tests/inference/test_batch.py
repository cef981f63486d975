"""A prefix derained by several tasks: shared out by name, passed over where whole, summed up; here and in S3."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.config import Config, load_config
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.inference import batch, load_derainer
from rgsud_lib.inference.batch import Share, derain_share, plan_shares, sum_up
from rgsud_lib.inference.tiles import derain_image
from rgsud_lib.storage import transfer
from rgsud_lib.storage.listing import list_files


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("demo", ["fan_out.images=3"])


@pytest.fixture
def rainy(mini_run, tmp_path: Path) -> Path:
    """Seven pictures, one of them in a folder of its own, a broken one, and a text."""
    folder = Path(shutil.copytree(mini_run.dataset.parent / "rainy", tmp_path / "rainy"))
    (folder / "below").mkdir()
    (folder / "0.png").rename(folder / "below" / "0.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def run(config: Config, rainy: str, target: str, model: str) -> tuple[list[dict], list[Share]]:
    shares = [Share.parse(text) for text in plan_shares(config, rainy, target, model)]
    return [derain_share(config, rainy, target, share) for share in shares], shares


def totals(parts: list[dict]) -> tuple[int, int, int]:
    """derained, passed over, failed"""
    counts = [(part["done"], part["skipped"], len(part["failed"])) for part in parts]
    return tuple(map(sum, zip(*counts, strict=True)))


def in_bucket(folder: Path, address: str) -> str:
    for path in folder.rglob("*.*"):
        transfer.upload(path, f"{address}/{path.relative_to(folder).as_posix()}")
    return address


@pytest.fixture(params=["here", "s3"])
def places(request: pytest.FixtureRequest, rainy: Path, tmp_path: Path) -> tuple[str, str]:
    if request.param == "here":
        return str(rainy), str(tmp_path / "derained")
    bucket = request.getfixturevalue("s3_bucket")
    return in_bucket(rainy, f"{bucket}/rainy"), f"{bucket}/derained"


def test_shards_share_the_files_out_and_a_second_run_does_the_broken_one_only(config, mini_run, places) -> None:
    parts, shares = run(config, *places, str(mini_run.reinforced))
    assert [str(share).partition(":")[0] for share in shares] == ["0/3", "1/3", "2/3"]
    assert totals(parts) == (7, 0, 1)
    assert [list(part["failed"]) for part in parts if part["failed"]] == [["broken.png"]]
    names = [file.name for file in list_files(places[1])]
    assert names == sorted([*(f"{index}.png" for index in range(1, 7)), "below/0.png"])
    before = {file.name: file.digest() for file in list_files(places[1])}
    assert totals(run(config, *places, str(mini_run.reinforced))[0]) == (0, 7, 1)
    assert {file.name: file.digest() for file in list_files(places[1])} == before


def test_outputs_are_those_of_the_evaluations_tiles(config, mini_run, rainy: Path, tmp_path: Path) -> None:
    run(config, str(rainy), str(tmp_path / "derained"), str(mini_run.reinforced))
    image = np.asarray(Image.open(rainy / "3.png").convert("RGB"))
    how = config.evaluation
    expected = derain_image(load_derainer(mini_run.reinforced), image, how.tile, how.overlap)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "derained" / "3.png")), expected)


def test_what_changed_is_made_again(config, mini_run, rainy: Path, tmp_path: Path) -> None:
    target = tmp_path / "derained"
    run(config, str(rainy), str(target), str(mini_run.reinforced))
    shutil.copy(rainy / "2.png", rainy / "1.png")  # another original
    (target / "3.png").unlink()  # an output that is gone
    (target / ".rgsud" / "records" / "4.png.json").unlink()  # killed between output and record
    assert totals(run(config, str(rainy), str(target), str(mini_run.reinforced))[0]) == (3, 4, 1)
    assert (target / "1.png").read_bytes() == (target / "2.png").read_bytes()
    assert totals(run(config, str(rainy), str(target), str(mini_run.recycled))[0]) == (7, 0, 1), "another model"
    mirrored = load_config("demo", ["fan_out.images=9", "evaluation.mirror=true"])
    parts, shares = run(mirrored, str(rainy), str(target), str(mini_run.recycled))
    assert totals(parts) == (7, 0, 1) and len(shares) == 1


def test_a_shard_that_is_killed_leaves_records_of_what_is_whole_only(config, mini_run, rainy, tmp_path, monkeypatch):
    target = tmp_path / "derained"
    run(config, str(rainy), str(target), str(mini_run.recycled))
    real = batch.Worker.run

    def killed(self, jobs, *rest):
        yield next(real(self, jobs, *rest))
        raise KeyboardInterrupt

    monkeypatch.setattr(batch.Worker, "run", killed)
    shares = plan_shares(config, str(rainy), str(target), str(mini_run.reinforced))
    for text in shares:
        with pytest.raises(KeyboardInterrupt):
            derain_share(config, str(rainy), str(target), Share.parse(text))
    done = len(list((target / ".rgsud" / "records").rglob("*.json")))
    assert done <= len(shares), "records of the other model's outputs are gone before these are made again"
    monkeypatch.setattr(batch.Worker, "run", real)
    assert totals(run(config, str(rainy), str(target), str(mini_run.reinforced))[0]) == (7 - done, done, 1)


def test_a_file_stays_in_its_shard_when_others_come(config, mini_run, rainy: Path, tmp_path: Path) -> None:
    shares = [
        Share.parse(text) for text in plan_shares(config, str(rainy), str(tmp_path / "out"), str(mini_run.recycled))
    ]
    names = [f"{folder}{index}.jpg" for folder in ("", "a/") for index in range(100)]
    taken = [[name for name in names if share.has(name)] for share in shares]
    assert sorted(name for part in taken for name in part) == sorted(names)
    assert min(map(len, taken)) > 40


def test_the_summary_says_what_failed_and_fails_with_too_much(config, mini_run, places) -> None:
    _, shares = run(config, *places, str(mini_run.reinforced))
    with pytest.raises(
        DataError, match=r"7 derained, 0 were there, 1 failed, more than .*failures=0.01 of 8; .*"
    ) as error:
        sum_up(config, places[1], shares)
    assert "\n  broken.png: " in str(error.value)
    document = batch._read(f"{places[1]}/derained.json")
    assert (document["done"], list(document["failed"])) == (7, ["broken.png"])
    assert document["model_sha256"] == shares[0].shard.sources
    lenient = load_config("demo", ["fan_out.images=3", "fan_out.failures=0.2"])
    assert sum_up(lenient, places[1], shares) == "7 derained, 0 were there, 1 failed"
    with pytest.raises(DataError, match=r"9-of-10.json is missing; run shard 9/10:a again"):
        sum_up(lenient, places[1], [*shares, Share.parse("9/10:a m")])


def test_an_alias_is_settled_once_for_all_shards(config, mini_run, rainy: Path, tmp_path: Path, monkeypatch) -> None:
    file = mini_run.reinforced / "derainer.safetensors"
    registry = SimpleNamespace(find=lambda alias: SimpleNamespace(version={"champion": 7}[alias]))
    monkeypatch.setattr("rgsud_lib.registry.Registry.open", lambda workdir: registry)
    monkeypatch.setattr(batch, "local_model", lambda model: {"models:/rgsud/7": file}[model])
    shares = plan_shares(config, str(rainy), str(tmp_path / "derained"), "models:/rgsud@champion")
    assert {Share.parse(text).model for text in shares} == {"models:/rgsud/7"}


def test_a_model_that_is_no_longer_the_planned_one_is_refused(config, mini_run, rainy: Path, tmp_path: Path) -> None:
    model = str(tmp_path / "model.safetensors")
    shutil.copy(mini_run.reinforced / "derainer.safetensors", model)
    share = Share.parse(plan_shares(config, str(rainy), str(tmp_path / "derained"), model)[0])
    shutil.copy(mini_run.recycled / "derainer.safetensors", model)
    with pytest.raises(BundleError, match="model.safetensors is another model than was planned with"):
        derain_share(config, str(rainy), str(tmp_path / "derained"), share)


def test_mistakes_are_named(config, mini_run, rainy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rainy/out lies in .*; choose a target beside it"):
        plan_shares(config, str(rainy), str(rainy / "out"), str(mini_run.reinforced))
    with pytest.raises(ConfigError, match="expected INDEX/COUNT:DIGEST MODEL"):
        Share.parse("0/1:a")
    with pytest.raises(DataError, match="does not exist"):
        plan_shares(config, str(tmp_path / "none"), str(tmp_path / "out"), str(mini_run.reinforced))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images or videos"):
        plan_shares(config, str(tmp_path / "empty"), str(tmp_path / "out"), str(mini_run.reinforced))


def test_records_and_summaries_are_no_images_to_derain(config, mini_run, rainy: Path, tmp_path: Path) -> None:
    """An output prefix can be the next one's input."""
    target = tmp_path / "derained"
    run(config, str(rainy), str(target), str(mini_run.reinforced))
    again, _ = run(config, str(target), str(tmp_path / "twice"), str(mini_run.reinforced))
    assert totals(again) == (7, 0, 0)
    assert json.loads((target / ".rgsud" / "records" / "below" / "0.png.json").read_text())["source"]
