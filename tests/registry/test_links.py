"""MLflow's links: scores of a model tied to its dataset, models of a gate; and what `rgsud lineage` makes of it all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rgsud_lib import tracking
from rgsud_lib.bundle import Bundle, seal
from rgsud_lib.errors import BundleError
from rgsud_lib.lineage.graph import trace
from rgsud_lib.registry import Registry, promotion
from rgsud_lib.registry.promotion_log import promote
from rgsud_lib.tracking.mlflow_models import BUNDLE_DIGEST, BUNDLE_PATH
from rgsud_lib.tracking.mlflow_store import PARENT


def make(config, workdir: Path, folder: Path, stage: str, kind: str, **inputs: str) -> tuple[Bundle, str]:
    """A stage's bundle in `folder`, and the id of its run in the workdir's MLflow."""
    folder.mkdir(parents=True)
    (folder / "result").write_text(stage)
    with tracking.stage_run(stage, config, workdir, stage) as run:
        for name, digest in inputs.items():
            run.log_input(name, digest, str(folder), stage)
        bundle = seal(folder, kind, "c", inputs)
        run.set_tags({BUNDLE_DIGEST: bundle.digest, BUNDLE_PATH: str(folder)})
        run.flush()
    return bundle, run.run_id


def test_scores_and_rivals_are_linked(config, gate_dataset: Path, make_export, workdir: Path) -> None:
    weak, good = make_export(0.010), make_export(0.024)
    scores = {"pairs": {"mean": {"input": {"psnr_rgb": 20.0}, "reinforced": {"psnr_rgb": 25.5}}}}
    summary = {"models": ["input", "reinforced"], "held_back_rainy": None, **scores}
    (good / "metrics.json").write_text(json.dumps(summary))
    promotion.promotion_gate(config, gate_dataset, weak, workdir)
    registry = Registry.open(workdir)
    promote(registry, "1", "none", "first")
    promotion.promotion_gate(config, gate_dataset, good, workdir)
    first, second = registry.find("1"), registry.find("2")
    (metric,) = registry.client.get_logged_model(second.tags["rgsud.model_id"]).metrics
    assert (metric.key, metric.value) == ("pairs/psnr_rgb_dB", 25.5)
    assert (metric.dataset_name, metric.dataset_digest) == ("dataset", "dataset-d")
    gate = registry.run(second.tags["rgsud.gate_run_id"])
    assert {read.model_id for read in gate.inputs.model_inputs} == {
        version.tags["rgsud.model_id"] for version in (first, second)
    }
    assert second.tags["rgsud.pipeline_run_id"] == gate.data.tags[PARENT] and second.tags["rgsud.seed"] == "0"
    assert f"[promotion gate](#/experiments/{registry.experiment}/runs/{gate.info.run_id})" in second.description
    assert "model_card.md" in {file.path for file in registry.client.list_artifacts(gate.info.run_id)}

    found = trace("models:/rgsud@champion", [workdir])
    assert found.roots == (("version", "1"),)
    assert found.nodes["version", "1"].about[0] == "champion"
    assert {name: node.state for name, node in found.nodes.items()} == {
        ("version", "1"): "found", ("export", first.tags["rgsud.export_digest"]): "gone",
        ("dataset", "dataset-d"): "unknown", ("reinforced", "reinforced-d"): "unknown",
        ("evaluation", "evaluation-d"): "unknown",
    }  # fmt: skip
    with pytest.raises(BundleError, match="there are models:/rgsud/2, models:/rgsud/1"):
        trace("models:/rgsud/7", [workdir])


def test_mlflow_leads_to_other_workdirs_and_remembers_what_is_gone(config, workdir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "stages"
    dataset, _ = make(config, workdir, elsewhere / "prepare-a", "prepare", "dataset", sources="5" * 16)
    recycled, run_id = make(config, workdir, elsewhere / "recycle-a", "recycle", "recycled", dataset=dataset.digest)
    digests = {"dataset": dataset.digest, "recycled": recycled.digest}
    last, last_run = make(config, workdir, workdir / "stages" / "reinforce-a", "reinforce", "reinforced", **digests)
    parent = Registry.open(workdir).run(run_id).data.tags[PARENT]
    for asked in (str(last.path), last_run, parent):
        found = trace(asked, [workdir])
        assert found.roots == (("reinforced", last.digest),)
        assert [kind for kind, _ in found.sources] == ["reinforced", "recycled", "dataset", "sources"]
        assert all(node.state == "found" for node in found.nodes.values()) and not found.notes
    assert found.nodes["recycled", recycled.digest].place == str(recycled.path)
    shutil.rmtree(recycled.path)
    found = trace(run_id, [workdir])
    assert found.nodes["recycled", recycled.digest].state == "gone"
    assert found.nodes["dataset", dataset.digest].state == "found"
    assert ("reinforced", last.digest) in found.results
    (note,) = found.notes
    assert f"is not in {recycled.path} any more" in note and "MLflow's word" in note
    with pytest.raises(BundleError, match="is no run that MLflow knows"):
        trace("0" * 32, [workdir])
