"""Both ways, from folders alone: from what is asked for to raw images and to versions; what is missing is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rgsud_lib.bundle import Bundle
from rgsud_lib.errors import BundleError
from rgsud_lib.lineage.drawing import draw, page
from rgsud_lib.lineage.graph import Lineage, trace
from rgsud_lib.lineage.tree import tree
from rgsud_pipelines.cli import app


@pytest.fixture(autouse=True)
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")


def kinds(names: tuple[tuple[str, str], ...]) -> list[str]:
    return [kind for kind, _ in names]


UP = ["export", "evaluation", "reinforced", "recycled", "dataset", "sources"]


def test_from_a_model_up_to_the_raw_images(chain, tmp_path: Path) -> None:
    for asked in (chain["export"].path, tmp_path / "runs", chain["export"].path / "bundle.json"):
        found = trace(str(asked), [])
        assert kinds(found.roots) == ["export"] and kinds(found.sources) == UP
    assert found.nodes["sources", "5" * 16].about == ("rainy: /photos/rain", "clean: s3://photos/clean")
    assert all(node.state == "found" for node in found.nodes.values())


def test_from_the_data_down_to_all_models(chain, make, tmp_path: Path) -> None:
    second = make("recycle", chain["dataset"], named="b")
    manifest, runs = chain["dataset"], [tmp_path / "runs"]
    for asked in ("/photos/rain", "/photos", "s3://photos/clean/", "5" * 16):
        found = trace(asked, runs)
        assert kinds(found.roots) == ["sources"] and kinds(found.sources) == ["sources"]
        assert sorted(kinds(found.results)) == sorted([*UP, "recycled"])
    found = trace(manifest.digest[:8], runs)
    assert found.roots == (("dataset", manifest.digest),)
    assert sorted(kinds(found.results)) == sorted([*UP[:-1], "recycled"]) and second.digest in str(found.results)


def test_only_direct_steps_are_drawn(chain, tmp_path: Path) -> None:
    found = trace(str(tmp_path / "runs"), [])
    assert [kinds(tuple(found.steps(name))) for name in found.sources] == [
        ["evaluation"], ["reinforced"], ["recycled"], ["dataset"], ["sources"], [],
    ]  # fmt: skip
    assert found.uses(("dataset", chain["dataset"].digest)) == [("recycled", chain["recycled"].digest)]


def test_a_missing_bundle_is_named_and_all_else_is_shown(chain, make, tmp_path: Path) -> None:
    shutil.rmtree(chain["recycled"].path)
    found = trace(str(chain["export"].path), [])
    assert sorted(kinds(found.sources)) == sorted(UP)
    assert found.nodes["recycled", chain["recycled"].digest].state == "unknown"
    assert any(f"stage 1 {chain['recycled'].digest} is not in {tmp_path / 'runs'}" in note for note in found.notes)
    text = tree(found)
    assert f"stage 1 {chain['recycled'].digest} (not found)" in text and "give the workdir it is in now" in text
    assert f"dataset {chain['dataset'].digest}" in text
    moved = make("recycle", chain["dataset"], workdir="elsewhere")
    assert moved.digest == chain["recycled"].digest
    assert trace(str(chain["export"].path), [tmp_path / "elsewhere"]).nodes["recycled", moved.digest].state == "found"


def test_a_model_file_that_was_copied_away(mini_run, make, tmp_path: Path) -> None:
    from rgsud_lib.inference import load_derainer, save_derainer, weights_digest

    derainer, config = load_derainer(mini_run.reinforced), mini_run.config.derainer
    dataset = make("prepare", sources="5" * 16)
    facts = {"dataset_digest": dataset.digest, "reinforced_digest": "1" * 16}
    save_derainer(derainer, config, tmp_path / "copy.safetensors", facts)
    found = trace(str(tmp_path / "copy.safetensors"), [tmp_path / "runs"])
    assert kinds(found.roots) == ["file"] and found.nodes[found.roots[0]].place == str(tmp_path / "copy.safetensors")
    assert set(kinds(found.sources)) == {"file", "reinforced", "dataset", "sources"}
    export = make("export", dataset, facts={"weights_digest": weights_digest(derainer.state_dict())})
    assert trace(str(tmp_path / "copy.safetensors"), [tmp_path / "runs"]).roots == (("export", export.digest),)
    (tmp_path / "broken.safetensors").write_text("x")
    with pytest.raises(BundleError, match="is no readable model"):
        trace(str(tmp_path / "broken.safetensors"), [tmp_path / "runs"])


def test_what_names_nothing_known(chain, tmp_path: Path) -> None:
    for asked in ("/other/photos", "abcdef01", str(tmp_path)):
        with pytest.raises(BundleError, match="nothing is known of it in .*runs; expected a model file"):
            trace(asked, [tmp_path / "runs"])
    with pytest.raises(BundleError, match="is no version of the registry; there are none.*tracking is off"):
        trace("models:/rgsud@champion", [tmp_path / "runs"])


@pytest.fixture
def retrained(chain: dict[str, Bundle], make) -> Lineage:
    """A model that follows another: its dataset keeps the split of the one before, its stage 1 its weights."""
    dataset = make("prepare", named="b", sources="6" * 16, earlier=chain["dataset"].digest)
    recycled = make("recycle", dataset, chain["reinforced"], named="b")
    return trace(str(make("reinforce", dataset, recycled, named="b").path), [])


def test_no_two_boxes_are_drawn_over_each_other(retrained: Lineage) -> None:
    from rgsud_lib.lineage.drawing import WIDTH, _boxes

    boxes = list(_boxes(retrained).values())
    assert len(boxes) == len(retrained.sources) == 8
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            apart = one.top + one.height < other.top or other.top + other.height < one.top
            assert apart or abs(one.left - other.left) >= WIDTH
    svg = draw(retrained)
    assert svg.count("<rect") == 8 and svg.count('class="step"') == sum(
        len(retrained.steps(n)) for n in retrained.nodes
    )
    for name in retrained.nodes:
        for start in retrained.steps(name):
            assert _boxes(retrained)[start].top < _boxes(retrained)[name].top


def test_names_are_escaped_on_the_page(make, tmp_path: Path) -> None:
    make("prepare", sources="5" * 16, facts={"sources": {"rainy": "/a/<b>&"}})
    html = page(trace(str(tmp_path / "runs"), []))
    assert "<b>&" not in html and html.count("/a/&lt;b&gt;&amp;") == 3  # twice in the drawing, once in the table


def test_the_command(chain, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["lineage", str(tmp_path / "runs"), "--out", str(tmp_path / "l.html")])
    assert done.exit_code == 0, done.output
    assert done.output.index("exported model") < done.output.index("stage 2") < done.output.index("raw images")
    assert "<svg" in (tmp_path / "l.html").read_text()
    done = run(app, ["lineage", "/photos/rain", "--workdir", str(tmp_path / "runs"), "--json", "--out", "x.png"])
    assert done.exit_code == 1 and "ends with .html or .svg" in str(done.exception)
    done = run(app, ["lineage", "/photos/rain", "--workdir", str(tmp_path / "runs"), "--json"])
    document = json.loads(done.output)
    assert document["roots"] == [["sources", "5" * 16]] and len(document["nodes"]) == 6
