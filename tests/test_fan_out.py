"""One task and many give the same bytes, whatever of the many was done, here or in S3."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgsud_lib import fan_out, stages
from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Config, load_config
from rgsud_lib.errors import ConfigError
from rgsud_lib.fan_out import Shard, plan_shards
from rgsud_lib.storage.remote import is_finished, pulled


@pytest.fixture(autouse=True)
def untracked(monkeypatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("demo", ["critic.enabled=false", "reward.scorer=rain_layer", "fan_out.images=9"])


@pytest.fixture
def sources(mini_run, tmp_path: Path) -> tuple[str, str, str]:
    """Seven rainy images, of which one is broken, eight clean ones and three pairs: 21 files."""
    for role in ("rainy", "clean", "paired"):
        shutil.copytree(mini_run.dataset.parent / role, tmp_path / "sources" / role)
    (tmp_path / "sources" / "rainy" / "6.png").write_bytes(b"no picture")
    return tuple(str(tmp_path / "sources" / role) for role in ("rainy", "clean", "paired"))


@given(st.integers(0, 40), st.integers(1, 12))
def test_shards_in_order_make_the_whole_and_are_of_even_length(length: int, count: int) -> None:
    items = list(range(length))
    shards = [shard.of(items) for shard in Shard(0, count).siblings()]
    assert [item for shard in shards for item in shard] == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["", "1/1:a", "0/0:", "0/2", "-1/2:a", "a/b:c", "0/1:a/b"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected INDEX/COUNT:DIGEST"):
        Shard.parse(text)


def test_the_plan_has_a_shard_for_every_few_images_and_one_at_least(config: Config, sources, tmp_path: Path) -> None:
    shards = [Shard.parse(text) for text in plan_shards(config, *sources)]
    assert [(shard.index, shard.count) for shard in shards] == [(0, 3), (1, 3), (2, 3)]
    assert len({shard.sources for shard in shards}) == 1
    few = load_config("demo", ["fan_out.images=21"])
    assert [text.partition(":")[0] for text in plan_shards(few, *sources)] == ["0/1"]


def test_how_work_is_shared_out_is_part_of_no_stages_key(config: Config) -> None:
    other = load_config("demo", ["critic.enabled=false", "reward.scorer=rain_layer", "fan_out.images=1"])
    for stage in stages.KINDS:
        assert stages.stage_key(stage, config, {}) == stages.stage_key(stage, other, {})


def payload(place: Path | str) -> dict[str, str]:
    return open_bundle(pulled(place)).files


@pytest.mark.parametrize("done", [{0, 1, 2}, {1}, set()])
def test_many_shards_give_the_same_dataset_as_one(config: Config, sources, tmp_path: Path, done: set[int]) -> None:
    whole = stages.prepare(config, *sources, tmp_path / "one")
    shards = [Shard.parse(text) for text in plan_shards(config, *sources)]
    for shard in shards:
        if shard.index in done:
            stages.check(config, *sources, shard, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("stages/check-*/bundle.json"))) == len(done)
    parts = stages.prepare(config, *sources, tmp_path / "many", shards=3)
    assert (Path(parts) / "manifest.json").read_bytes() == (Path(whole) / "manifest.json").read_bytes()
    assert payload(parts) == payload(whole) and open_bundle(Path(parts)).digest == open_bundle(Path(whole)).digest
    assert not list((tmp_path / "many").glob("stages/check-*")), "put together, the parts are gone"


def test_pictures_of_a_shard_are_not_decoded_again(config: Config, sources, tmp_path: Path, monkeypatch) -> None:
    for text in plan_shards(config, *sources):
        stages.check(config, *sources, Shard.parse(text), tmp_path)
    monkeypatch.setattr("rgsud_lib.data.reading.examine", None)
    assert is_finished(stages.prepare(config, *sources, tmp_path, shards=3))


def test_shards_travel_through_s3(config: Config, sources, tmp_path: Path, s3_bucket: str, monkeypatch) -> None:
    whole = stages.prepare(config, *sources, tmp_path / "one")
    for machine, text in enumerate(plan_shards(config, *sources)):
        monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / f"machine{machine}"))
        stages.check(config, *sources, Shard.parse(text), f"{s3_bucket}/work")
    parts = stages.prepare(config, *sources, f"{s3_bucket}/work", shards=3)
    assert payload(parts) == payload(whole)
    from rgsud_lib.storage.listing import list_objects

    left = {file.name.split("/")[0] for file in list_objects(f"{s3_bucket}/work/stages")}
    assert {name.split("-")[0] for name in left} == {"prepare"}


def test_nothing_is_done_ahead_of_what_is_done_or_not_shared(config: Config, sources, tmp_path: Path) -> None:
    shards = [Shard.parse(text) for text in plan_shards(config, *sources)]
    stages.check(config, *sources, Shard(0, 1, shards[0].sources), tmp_path)
    assert not (tmp_path / "stages").exists()
    stages.prepare(config, *sources, tmp_path)
    stages.check(config, *sources, shards[0], tmp_path)
    assert [path.name.split("-")[0] for path in tmp_path.glob("stages/*")] == ["prepare"]


def test_a_shard_of_other_files_is_not_used(config: Config, sources, tmp_path: Path) -> None:
    stale = fan_out.Shard(0, 3, "0123456789abcdef")
    stages.check(config, *sources, stale, tmp_path)
    whole = stages.prepare(config, *sources, tmp_path / "one")
    assert payload(stages.prepare(config, *sources, tmp_path, shards=3)) == payload(whole)
    assert len(list(tmp_path.glob("stages/check-*"))) == 1


@pytest.mark.parametrize("done", [{0, 1, 2}, {2}])
def test_many_shards_give_the_same_metrics_as_one(mini_run, tmp_path: Path, done: set[int]) -> None:
    bundles = mini_run.dataset, mini_run.recycled, mini_run.reinforced
    whole = stages.evaluate(mini_run.config, *bundles, tmp_path / "one")
    for index in done:
        stages.score(mini_run.config, *bundles, Shard(index, 3), tmp_path / "many")
    parts = stages.evaluate(mini_run.config, *bundles, tmp_path / "many", shards=3)
    for name in ("metrics.json", "per_image.csv"):
        assert (Path(parts) / name).read_bytes() == (Path(whole) / name).read_bytes()
    assert open_bundle(Path(parts)).facts == open_bundle(Path(whole)).facts
    assert not list((tmp_path / "many").glob("stages/score-*"))
