from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rgsud_lib.errors import BundleError
from rgsud_lib.lineage import gaps, walk, workdir_of
from rgsud_lib.storage import transfer


def kinds(place: Path | str, **options: object) -> list[str]:
    return [bundle.kind for bundle in walk(place, **options)]


def test_what_was_made_comes_before_its_inputs(chain) -> None:
    assert kinds(chain["export"].path) == ["export", "evaluation", "reinforced", "recycled", "dataset"]
    assert kinds(chain["recycled"].path) == ["recycled", "dataset"]
    assert gaps(walk(chain["export"].path)) == []


def test_a_removed_bundle_is_a_gap_and_what_lies_behind_it_is_found_by_others(chain) -> None:
    shutil.rmtree(chain["recycled"].path)
    bundles = walk(chain["export"].path)
    assert [bundle.kind for bundle in bundles] == ["export", "evaluation", "reinforced", "dataset"]
    assert gaps(bundles) == [("recycled", chain["recycled"].digest)]


def test_a_retrained_model_leads_to_the_model_before_it(chain, make) -> None:
    dataset = make("prepare", named="b", sources="6" * 16, earlier=chain["dataset"].digest)
    recycled = make("recycle", dataset, chain["reinforced"], named="b")
    found = walk(recycled.path)
    assert [bundle.path.name for bundle in found] == [
        "recycle-b", "reinforce-a", "recycle-a", "prepare-b", "prepare-a",
    ]  # fmt: skip


def test_inputs_may_lie_in_another_workdir(chain, make, tmp_path: Path) -> None:
    alone = make("reinforce", chain["dataset"], chain["recycled"], named="b", workdir="other")
    assert kinds(alone.path) == ["reinforced"]
    assert kinds(alone.path, elsewhere=[tmp_path / "runs"]) == ["reinforced", "recycled", "dataset"]


def test_in_s3(chain, s3_bucket: str) -> None:
    for bundle in chain.values():
        marker = (bundle.path / "bundle.json").read_bytes()
        transfer.write(f"{s3_bucket}/runs/stages/{bundle.path.name}/bundle.json", marker)
    address = f"{s3_bucket}/runs/stages/export-a"
    assert kinds(address) == ["export", "evaluation", "reinforced", "recycled", "dataset"]
    assert walk(address)[-1].path == f"{s3_bucket}/runs/stages/prepare-a"


def test_where_there_is_no_bundle(tmp_path: Path, s3_bucket: str) -> None:
    for place in (tmp_path, f"{s3_bucket}/runs/stages/export-b"):
        with pytest.raises(BundleError, match="is not a finished bundle"):
            walk(place)


def test_the_workdir_of_a_place(tmp_path: Path) -> None:
    assert workdir_of(tmp_path / "stages" / "export-a") == workdir_of(tmp_path / "export") == tmp_path
    assert workdir_of("s3://bucket/runs/stages/export-a") == "s3://bucket/runs"
