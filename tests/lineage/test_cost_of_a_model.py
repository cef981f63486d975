"""From a bundle back to what it was made from, and what that cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rgsud_lib.bundle import Bundle, seal
from rgsud_lib.cost.model import all_spent, model_cost
from rgsud_lib.cost.spent import Spent, documents, total
from rgsud_lib.errors import BundleError
from rgsud_lib.files import link_tree
from rgsud_lib.lineage import newest_first, walk, workdir_of
from rgsud_lib.storage.remote import finish


def made(workdir: Path, name: str, kind: str, seconds: float, **inputs: Bundle) -> Bundle:
    folder = workdir / "stages" / name
    folder.mkdir(parents=True)
    (folder / "file").write_text(name)
    digests = {given: bundle.digest for given, bundle in inputs.items()}
    return seal(folder, kind, "0", digests, cost=documents([Spent(seconds=seconds)]))


@pytest.fixture
def export(tmp_path: Path) -> Bundle:
    """A model that followed an earlier one, on a dataset that kept its split."""
    data0 = made(tmp_path, "prepare-0", "dataset", 1)
    first0 = made(tmp_path, "recycle-0", "recycled", 10, dataset=data0)
    second0 = made(tmp_path, "reinforce-0", "reinforced", 100, dataset=data0, recycled=first0)
    data = made(tmp_path, "prepare-1", "dataset", 2, earlier=data0)
    first = made(tmp_path, "recycle-1", "recycled", 20, dataset=data, reinforced=second0)
    second = made(tmp_path, "reinforce-1", "reinforced", 200, dataset=data, recycled=first)
    evaluation = made(tmp_path, "evaluate-1", "evaluation", 5, dataset=data, recycled=first, reinforced=second)
    made(tmp_path, "evaluate-other", "evaluation", 7, dataset=data, recycled=first, reinforced=second)
    return made(tmp_path, "export-1", "export", 3, dataset=data, reinforced=second, evaluation=evaluation)


def names(bundles: list[Bundle]) -> list[str]:
    return [Path(bundle.path).name for bundle in bundles]


def test_all_that_went_into_a_bundle_is_found_once_and_nothing_else(export: Bundle) -> None:
    found = names(walk(export.path))
    assert found[0] == "export-1" and len(found) == len(set(found)) == 8
    assert "evaluate-other" not in found


def test_a_models_cost_is_that_of_its_lineage_with_earlier_models_apart(export: Bundle) -> None:
    costs = model_cost(walk(export.path))
    assert [(cost.stage, cost.earlier) for cost in costs] == [
        ("prepare", True), ("recycle", True), ("reinforce", True),
        ("prepare", False), ("recycle", False), ("reinforce", False), ("evaluate", False), ("export", False),
    ]  # fmt: skip
    assert total(all_spent(costs)).seconds == 341
    assert total(all_spent(cost for cost in costs if not cost.earlier)).seconds == 230


def test_the_copy_in_the_workdir_is_as_good_and_what_is_gone_is_left_out(export: Bundle, tmp_path: Path) -> None:
    link_tree(Path(export.path), tmp_path / "export")
    assert workdir_of(tmp_path / "export") == workdir_of(export.path) == tmp_path
    (tmp_path / "stages" / "recycle-1" / "bundle.json").unlink()
    assert set(names(walk(tmp_path / "export"))) == {"export", "prepare-1", "prepare-0", "reinforce-1", "evaluate-1"}
    with pytest.raises(BundleError, match="recycle-1 is not a finished bundle"):
        walk(tmp_path / "stages" / "recycle-1")


def test_bundles_come_newest_first(export: Bundle, tmp_path: Path) -> None:
    os.utime(tmp_path / "stages" / "recycle-0" / "bundle.json", (2e9, 2e9))
    assert names([bundle for _, bundle in newest_first(tmp_path)])[0] == "recycle-0"


def test_a_workdir_in_s3_is_walked_by_its_markers(s3_bucket: str) -> None:
    def stage(name: str, kind: str, **inputs: str) -> str:
        def make(folder: Path, deliver) -> None:
            (folder / "file").write_text(name)
            seal(folder, kind, "0", inputs)
            deliver()

        return finish(f"{s3_bucket}/runs/stages/{name}", kind, make)

    (data,) = walk(stage("prepare-1", "dataset"))
    place = stage("recycle-1", "recycled", dataset=data.digest)
    assert [bundle.kind for bundle in walk(place)] == ["recycled", "dataset"]
    assert workdir_of(place) == f"{s3_bucket}/runs"
