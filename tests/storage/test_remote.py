"""Bundles in S3: whole or absent, one winner of a race, fetched once, and never a file outside of the cache."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kfp import dsl

from rgsud_lib.bundle import open_bundle, parse_bundle, seal
from rgsud_lib.errors import BundleError, DataError
from rgsud_lib.files import sha256_file
from rgsud_lib.storage import remote, s3, shards, transfer
from rgsud_lib.task import fetch, publish


def fill(folder: Path, content: str = "x") -> None:
    for name in ("report.html", "images/a.png", "images/b.png", "deep/er/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content} {name}")
    (folder / ".hidden").write_text("not part of it")


def making(content: str = "x", meanwhile: Callable[[], object] = lambda: None):
    def make(folder: Path, deliver: Callable[[], object]) -> None:
        fill(folder, content)
        seal(folder, "dataset", "c")
        meanwhile()
        deliver()

    return make


@pytest.fixture
def address(s3_bucket: str) -> str:
    return f"{s3_bucket}/runs/stages/prepare-0123"


@pytest.fixture
def bundle(address: str) -> str:
    return remote.finish(address, "dataset", making())


@pytest.fixture
def other_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "other-node"))
    return tmp_path / "other-node"


def names(location: str) -> list[str]:
    return sorted(file.name for file in transfer.list_objects(location))


def replace(location: str, data: bytes) -> None:
    bucket, key = s3.split(location)
    s3.client().put_object(Bucket=bucket, Key=key, Body=data)


@pytest.fixture
def requests(on_request) -> Callable[[str], list[str]]:
    """The keys of the requests of one kind from now on."""

    def begin(operation: str) -> list[str]:
        seen: list[str] = []
        on_request(f"provide-client-params.s3.{operation}", lambda params, **_: seen.append(params["Key"]))
        return seen

    return begin


def test_what_lies_in_s3(bundle: str, s3_bucket: str, tmp_path: Path) -> None:
    digest = remote.open_anywhere(bundle, "dataset").digest
    assert names(bundle) == [f"{digest}/.shards/00000.tar", f"{digest}/.shards/index.json", f"{digest}/report.html",
                             "bundle.json"]  # fmt: skip
    assert transfer.read(f"{bundle}/{digest}/report.html") == b"x report.html"
    with tarfile.open(fileobj=io.BytesIO(transfer.read(f"{bundle}/{digest}/.shards/00000.tar"))) as tar:
        assert tar.getnames() == ["deep/er/c", "images/a.png", "images/b.png"]
    assert remote.newest("dataset", f"{s3_bucket}/runs") == bundle
    assert list((tmp_path / "cache" / "work").rglob("*.png")) == [], "nothing is left in the scratch folder"


def test_what_was_made_here_is_not_fetched_and_nothing_is_made_or_sent_again(bundle: str, requests) -> None:
    sent, got = requests("PutObject"), requests("GetObject")
    folder = remote.pulled(bundle)
    assert remote.finish(bundle, "dataset", lambda *_: pytest.fail("made again")) == bundle
    assert open_bundle(folder, "dataset").files and (folder / "images" / "b.png").read_text() == "x images/b.png"
    assert {key.rpartition("/")[2] for key in got} == {"bundle.json"}
    assert [key.rpartition("/")[2] for key in sent] == ["dataset.json"]


def test_another_machine_fetches_once(bundle: str, other_node: Path, requests) -> None:
    folder = remote.pulled(bundle)
    assert open_bundle(folder, "dataset") and folder.is_relative_to(other_node)
    got = requests("GetObject")
    assert remote.pulled(f"{bundle}/") == folder
    assert [key.rpartition("/")[2] for key in got] == ["bundle.json"]
    (folder / "images" / "a.png").write_text("damaged")
    assert (remote.pulled(bundle) / "images" / "a.png").read_text() == "x images/a.png", "fetched again"


def test_of_two_machines_the_first_wins_and_its_files_stay_whole(address: str, monkeypatch, tmp_path: Path) -> None:
    def first() -> None:
        monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "faster"))
        remote.finish(address, "dataset", making("first"))
        monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "cache"))

    assert remote.finish(address, "dataset", making("second", meanwhile=first)) == address
    assert (remote.pulled(address) / "images" / "a.png").read_text() == "first images/a.png"
    assert len({name.split("/")[0] for name in names(address)}) == 2, "the second's payload is gone"


def test_what_is_delivered_waits_for_who_fills_the_same_folder_of_the_cache(address: str, tmp_path: Path) -> None:
    fill(tmp_path / "same")
    seal(tmp_path / "same", "dataset", "c")
    document = (tmp_path / "same" / "bundle.json").read_bytes()
    with ThreadPoolExecutor(1) as pool:
        with remote._cached(parse_bundle(document, tmp_path), document) as target:
            delivery = pool.submit(remote.finish, address, "dataset", making())
            while remote.find(address) is None:
                time.sleep(0.02)
            time.sleep(0.3)
            assert not target.exists() and not delivery.done()
        assert delivery.result() == address
    assert open_bundle(target) and remote.pulled(address) == target


def test_an_interrupted_delivery_is_no_bundle_and_is_completed_without_work(address: str, monkeypatch) -> None:
    create = transfer.create
    monkeypatch.setattr(transfer, "create", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remote.finish(address, "dataset", making())
    assert remote.find(address) is None
    with pytest.raises(BundleError, match="not a finished bundle"):
        remote.pulled(address)
    monkeypatch.setattr(transfer, "create", create)
    remote.finish(address, "dataset", lambda *_: pytest.fail("worked again"))
    assert open_bundle(remote.pulled(address))


def test_an_interrupted_fetch_leaves_nothing_that_looks_whole(bundle: str, other_node: Path, monkeypatch) -> None:
    unpack = shards.unpack
    monkeypatch.setattr(shards, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remote.pulled(bundle)
    assert [path for path in (other_node / "bundles").iterdir() if not path.name.startswith(".")] == []
    monkeypatch.setattr(shards, "unpack", unpack)
    assert open_bundle(remote.pulled(bundle))


@pytest.mark.parametrize("name", ["report.html", ".shards/00000.tar"])
def test_a_corrupt_object_is_refused_by_its_name(bundle: str, other_node: Path, name: str) -> None:
    damaged = f"{bundle}/{remote.open_anywhere(bundle).digest}/{name}"
    replace(damaged, b"\0" * 20_000)
    with pytest.raises(BundleError, match=f"{damaged} was altered"):
        remote.pulled(bundle)
    transfer.delete([damaged])
    with pytest.raises(DataError, match=f"{damaged} .*the object is gone"):
        remote.pulled(bundle)


def test_a_shard_that_was_replaced_together_with_its_index(bundle: str, other_node: Path, tmp_path: Path) -> None:
    base = f"{bundle}/{remote.open_anywhere(bundle).digest}"
    fill(tmp_path / "forged", "forged")
    tar = tmp_path / "tar"
    places = shards.pack(tmp_path / "forged", ["deep/er/c", "images/a.png", "images/b.png"], tar)
    index = {"shards": {"00000.tar": sha256_file(tar)}, "files": {n: ["00000.tar", *p] for n, p in places.items()}}
    replace(f"{base}/.shards/00000.tar", tar.read_bytes())
    replace(f"{base}/.shards/index.json", json.dumps(index).encode())
    with pytest.raises(BundleError, match=r"deep/er/c in .*00000.tar differs from what bundle.json says"):
        remote.pulled(bundle)


@pytest.mark.parametrize(("change", "message"), [
    ({"../../evil": ["00000.tar", 0, 1]}, "refused to write '../../evil'"),
    ({"/evil": ["00000.tar", 0, 1]}, "refused to write '/evil'"),
    ({"unknown": ["00000.tar", 0, 1]}, "names 'unknown', which bundle.json does not"),
    ({"images/a.png": ["00000.tar", -5, 1]}, "points outside of its shards"),
    ({"images/a.png": ["../bundle.json", 0, 1]}, "points outside of its shards"),
    ({"images/a.png": "00000.tar"}, "cannot be read"),
])  # fmt: skip
def test_a_hostile_index_writes_nothing(bundle: str, other_node: Path, change: dict, message: str) -> None:
    index = f"{bundle}/{remote.open_anywhere(bundle).digest}/.shards/index.json"
    document = json.loads(transfer.read(index))
    document["files"] |= change
    replace(index, json.dumps(document).encode())
    with pytest.raises(BundleError, match=message):
        remote.pulled(bundle)
    assert not list(other_node.parent.rglob("evil"))


def test_a_hostile_marker_is_refused(bundle: str, other_node: Path) -> None:
    marker = json.loads(transfer.read(f"{bundle}/bundle.json"))
    for change, message in (
        ({"digest": "../../../evil"}, "bundle.json was altered"),
        ({"files": {"../evil": "0" * 64}}, "bundle.json was altered"),
        ({"kind": "recycled"}, "holds a 'recycled' bundle, expected 'dataset'"),
        ({"schema": 99}, "bundle schema 99"),
    ):
        replace(f"{bundle}/bundle.json", json.dumps(marker | change).encode())
        with pytest.raises(BundleError, match=message):
            remote.open_anywhere(bundle, "dataset")
    replace(f"{bundle}/bundle.json", b"{")
    with pytest.raises(BundleError, match="bundle.json cannot be read"):
        remote.pulled(bundle)


def test_many_shards_and_a_file_too_large_for_one(address: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 40_960)

    def make(folder: Path, deliver: Callable[[], object]) -> None:
        (folder / "sub").mkdir()
        for number in range(9):
            (folder / "sub" / str(number)).write_bytes(bytes([number]) * 10_000)
        (folder / "sub" / "large").write_bytes(b"l" * 50_000)
        seal(folder, "dataset", "c")
        deliver()

    remote.finish(address, "dataset", make)
    stored = [name.split("/", 1)[1] for name in names(address) if "/" in name]
    assert "sub/large" in stored and sum(name.endswith(".tar") for name in stored) > 2
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "elsewhere"))
    assert open_bundle(remote.pulled(address)).files.keys() == {f"sub/{name}" for name in [*range(9), "large"]}


def test_an_artifact_holds_only_a_pointer(bundle: str, tmp_path: Path) -> None:
    artifact = dsl.Dataset(uri=str(tmp_path / "artifact"))
    publish(bundle, artifact)
    assert [path.name for path in (tmp_path / "artifact").iterdir()] == ["bundle.json"]
    assert artifact.metadata["folder"] == bundle == fetch(artifact)
    assert artifact.metadata["digest"] == remote.open_anywhere(bundle).digest
    artifact.metadata["folder"] = str(tmp_path)
    assert fetch(artifact) == tmp_path / "artifact"


def test_where_a_model_is(bundle: str, s3_bucket: str, tmp_path: Path) -> None:
    assert remote.model_path("folder") == Path("folder")
    assert remote.model_path(bundle) == remote.pulled(bundle)
    with pytest.raises(BundleError, match="no finished 'export' bundle in s3://"):
        remote.model_path(f"{s3_bucket}/runs")
    transfer.write(f"{s3_bucket}/m/x.safetensors", b"weights")
    assert remote.model_path(f"{s3_bucket}/m/x.safetensors").read_bytes() == b"weights"
