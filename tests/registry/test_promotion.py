"""From an export to a champion: register, compare, promote; idempotent, audited, and clear where it cannot be done."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from rgsud_lib.bundle import open_bundle
from rgsud_lib.errors import RegistryError
from rgsud_lib.inference import load_derainer
from rgsud_lib.registry import Registry, model_file, promotion
from rgsud_lib.registry.promotion_log import promote, rollback
from rgsud_lib.storage import remote


def tags(workdir: Path, version: str) -> dict[str, str]:
    return Registry.open(workdir).find(version).tags


def test_first_better_worse_and_back(config, gate_dataset: Path, make_export, workdir: Path) -> None:
    weak, good, bad = make_export(0.010), make_export(0.024), make_export(0.1)

    def gate(export: Path) -> str:
        return promotion.promotion_gate(config, gate_dataset, export, workdir)

    assert gate(weak) == "promote"
    registry = Registry.open(workdir)
    assert registry.aliases() == {"challenger": "1"}, "the gate decides, the promotion acts"
    promotion.promote_exported(weak, workdir)
    assert registry.aliases() == {"champion": "1"}
    assert gate(good) == "promote"
    promotion.promote_exported(good, workdir)
    promotion.promote_exported(good, workdir)  # a retried task
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    assert gate(bad) == "hold"
    with pytest.raises(RegistryError, match="has the verdict 'hold' at sqlite"):
        promotion.promote_exported(bad, workdir)
    assert registry.aliases() == {"champion": "2", "previous": "1", "challenger": "3"}
    verdict = json.loads((workdir / "gate" / "verdict.json").read_text())
    assert {check["rule"]: check["passed"] for check in verdict["checks"]} == {
        "sound": True, "better than doing nothing": False, "better than the champion": False,
        "harmless to clean images": False, "quick": True,
    }  # fmt: skip
    assert re.fullmatch(r"\d+\.\d\d s a megapixel \(champion \d+\.\d\d s\), .*", verdict["checks"][-1]["text"])
    page = (workdir / "gate" / "verdict.html").read_text()
    assert "Hold version 3" in page and "champion version 2" in page and "data:image/jpeg" in page
    assert gate(good) == "hold", "the champion is not its own challenger"
    assert len(registry.versions()) == 3

    promoted = tags(workdir, "2")
    assert promoted["rgsud.replaces"] == "1" and promoted["rgsud.promoted_why"] == "passed the promotion gate"
    assert "better than the champion: pairs/psnr_rgb" in promoted["rgsud.gate_reasons"]
    run = MlflowClient(f"sqlite:///{workdir / 'mlflow.db'}").get_run(promoted["rgsud.gate_run_id"])
    assert run.info.run_name == "gate" and run.data.tags["rgsud.gate"] == "promote"
    names = {file.path for file in registry.client.list_artifacts(run.info.run_id)}
    assert {"verdict.json", "verdict.html"} <= names
    assert rollback(registry, "darkens") == "1"
    assert registry.aliases() == {"champion": "1", "previous": "2", "challenger": "3"}
    assert tags(workdir, "champion")["rgsud.promoted_why"] == "darkens"


def test_what_was_rolled_back_stays_so_until_it_is_promoted_by_hand(
    config, gate_dataset: Path, make_export, workdir: Path, monkeypatch
) -> None:
    monkeypatch.setenv("RGSUD_USER", "ada")
    weak, good = make_export(0.010), make_export(0.024)
    for export in (weak, good):
        assert promotion.promotion_gate(config, gate_dataset, export, workdir) == "promote"
        promotion.promote_exported(export, workdir)
    registry = Registry.open(workdir)
    rollback(registry, "darkens")
    with pytest.raises(RegistryError, match="version 2 at sqlite.* was rolled back by ada"):
        promotion.promote_exported(good, workdir)  # a task that is repeated, without its gate
    assert promotion.promotion_gate(config, gate_dataset, good, workdir) == "hold"  # the same training again
    assert re.fullmatch(
        r"version 2 was rolled back by ada on \S+ \(darkens\): promote it by hand \(`rgsud registry promote 2`\)",
        tags(workdir, "2")["rgsud.gate_reasons"],
    )
    with pytest.raises(RegistryError, match="has the verdict 'hold'"):
        promotion.promote_exported(good, workdir)
    assert registry.aliases()["champion"] == "1"
    promote(registry, "2", "1", "it was the camera")
    assert registry.aliases() == {"champion": "2", "previous": "1"}


def test_a_version_is_linked_to_its_model_and_run_and_says_what_it_was_made_from(
    config, gate_dataset: Path, make_export, workdir: Path
) -> None:
    export = make_export(0.024)
    promotion.promotion_gate(config, gate_dataset, export, workdir)
    registry = Registry.open(workdir)
    version = registry.find("challenger")
    bundle = open_bundle(export)
    assert {
        "rgsud.export_digest": bundle.digest,
        "rgsud.dataset_digest": "dataset-d",
        "rgsud.reinforced_digest": "reinforced-d",
        "rgsud.evaluation_digest": "evaluation-d",
        "rgsud.code_version": bundle.code_version,
        "rgsud.config_digest": config.digest(),
        "rgsud.reward": "rain_layer",
        "rgsud.judge": "niqe",
        "rgsud.gate": "promote",
        "rgsud.gate_against": "none",
    }.items() <= version.tags.items()
    assert version.description.startswith("# Card of 0.024")
    run = registry.client.get_run(version.run_id)
    (output,) = run.outputs.model_outputs
    model = registry.client.get_logged_model(output.model_id)
    assert model.source_run_id == run.info.run_id and model.status == "READY"
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "rgsud", "version": 1}]
    assert model.tags["rgsud.weights_digest"] == bundle.facts["weights_digest"]


def test_the_champion_is_loaded_from_the_registry(config, gate_dataset: Path, make_export, workdir: Path) -> None:
    export = make_export(0.024)
    promotion.promotion_gate(config, gate_dataset, export, workdir)
    promotion.promote_exported(export, workdir)
    picture = torch.rand(1, 3, 20, 30)
    registry = Registry.open(workdir)
    run = registry.client.get_run(str(registry.find("1").run_id))
    runs = (run.info.run_id, run.data.tags["mlflow.parentRunId"])
    with torch.no_grad():
        expected = load_derainer(export)(picture)
        for address in ("models:/rgsud@champion", "models:/rgsud/1", *(f"runs:/{run_id}" for run_id in runs)):
            assert torch.equal(load_derainer(model_file(address, workdir))(picture), expected)
    with pytest.raises(RegistryError, match="no version 'challenger' at sqlite.*there are champion, 1"):
        model_file("models:/rgsud@challenger", workdir)
    for address in ("models:/other@champion", "models:/rgsud", "runs:/", "runs:/1/model"):
        with pytest.raises(RegistryError, match="expected models:/rgsud@champion, models:/rgsud/3 or runs:/ID"):
            model_file(address, workdir)
    with pytest.raises(RegistryError, match="Run with id=feed not found"):
        model_file("runs:/feed", workdir)
    other = registry.client.create_run(registry.experiment).info.run_id
    with pytest.raises(RegistryError, match="has no model; name one that got to its export"):
        model_file(f"runs:/{other}", workdir)


def test_a_champion_that_changed_after_the_gate_is_not_replaced(
    config, gate_dataset: Path, make_export, workdir: Path
) -> None:
    first, second = make_export(0.02), make_export(0.022)
    for export in (first, second):
        assert promotion.promotion_gate(config, gate_dataset, export, workdir) == "promote"
    promotion.promote_exported(first, workdir)
    with pytest.raises(RegistryError, match="version 2 was compared with champion none, but the champion is 1 by now"):
        promotion.promote_exported(second, workdir)
    assert promotion.promotion_gate(config, gate_dataset, second, workdir) == "promote"
    promotion.promote_exported(second, workdir)
    assert Registry.open(workdir).aliases() == {"champion": "2", "previous": "1"}


def test_a_model_that_cannot_be_loaded_or_gives_nothing_is_held(
    config, gate_dataset: Path, make_export, workdir: Path, monkeypatch
) -> None:
    assert promotion.promotion_gate(config, gate_dataset, make_export(float("nan")), workdir) == "hold"
    assert "values that are not finite" in tags(workdir, "1")["rgsud.gate_reasons"]
    assert promotion.promotion_gate(config, gate_dataset, make_export(9.0), workdir) == "hold"
    assert "constant picture" in tags(workdir, "2")["rgsud.gate_reasons"]
    good = make_export(0.024)
    monkeypatch.setattr("rgsud_lib.registry.promotion.WEIGHTS", "model_card.md")
    assert promotion.promotion_gate(config, gate_dataset, good, workdir) == "hold"
    assert "the challenger cannot be loaded" in tags(workdir, "3")["rgsud.gate_reasons"]


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("RGSUD_TRACKING", "off", "tracking is off (RGSUD_TRACKING=off)"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "the model registry at http://127.0.0.1:9 failed"),
    ],
)
def test_without_a_registry_the_gate_holds_and_says_why(
    config, gate_dataset: Path, make_export, tmp_path: Path, monkeypatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(variable, value)
    export = make_export(0.024)
    assert promotion.promotion_gate(config, gate_dataset, export, tmp_path / "w") == "hold"
    verdict = json.loads((tmp_path / "w" / "gate" / "verdict.json").read_text())
    assert reason in verdict["reasons"][0]
    with pytest.raises(RegistryError):
        promotion.promote_exported(export, tmp_path / "w")


def test_promoting_by_hand_is_logged_too(config, gate_dataset: Path, make_export, workdir: Path, monkeypatch) -> None:
    monkeypatch.setenv("RGSUD_USER", "ada")
    promotion.promotion_gate(config, gate_dataset, make_export(0.1), workdir)
    registry = Registry.open(workdir)
    promote(registry, "1", "none", "better at night")
    assert tags(workdir, "1")["rgsud.promoted_by"] == "ada"
    with pytest.raises(RegistryError, match="nothing was replaced yet"):
        rollback(registry, "no")


def test_bundles_and_workdir_in_s3(
    config, gate_dataset: Path, make_export, s3_bucket: str, tmp_path: Path, database: bytes
) -> None:
    """The database of an s3:// workdir lies in the node's cache unless there is a tracking server."""
    work = f"{s3_bucket}/runs"

    def deliver(source: Path, stage: str, kind: str) -> str:
        def make(folder: Path, send: Callable[[], None]) -> None:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            send()

        return remote.finish(f"{work}/stages/{stage}", kind, make)

    dataset, export = deliver(gate_dataset, "prepare-1", "dataset"), deliver(make_export(0.024), "export-1", "export")
    local = remote.local_root(work)
    (local / "mlflow.db").write_bytes(database)
    assert promotion.promotion_gate(config, dataset, export, work) == "promote"
    promotion.promote_exported(export, work)
    assert Registry.open(work).aliases() == {"champion": "1"}
    assert model_file("models:/rgsud@champion", work).is_relative_to(local)
    assert (local / "gate" / "verdict.html").exists()
