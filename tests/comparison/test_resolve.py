"""What people call a run, to its evaluation; and a comparison that is found again in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.comparison.resolve import last, resolve
from rgsud_lib.config import load_config
from rgsud_lib.errors import BundleError, ComparisonError
from rgsud_lib.stages import stage_key
from rgsud_pipelines.cli import app


@pytest.fixture
def work(make_run, tmp_path: Path, monkeypatch) -> Path:
    """A workdir with the runs a1 and b2, the second newer."""
    import os

    monkeypatch.setenv("RGSUD_TRACKING", "off")
    for age, name in enumerate(("b2", "a1")):
        os.utime(make_run(name, 30 + age) / "bundle.json", (1000 - age, 1000 - age))
    return tmp_path / "work"


def test_a_workdir_a_stages_folder_and_an_export_are_their_evaluation(work: Path) -> None:
    stages = work / "stages"
    assert resolve(str(work), work) == str(stages / "evaluate-b2")
    for name in ("evaluate-a1", "reinforce-a1", "recycle-a1"):
        assert resolve(str(stages / name), work) == str(stages / "evaluate-a1")
    inputs = {"evaluation": open_bundle(stages / "evaluate-a1").digest}
    (work / "export").mkdir()
    seal(work / "export", "export", "0", inputs)
    assert resolve(str(work / "export"), work) == str(stages / "evaluate-a1")


def test_a_beginning_is_enough_where_it_is_the_only_one(work: Path) -> None:
    place = work / "stages" / "evaluate-a1"
    assert resolve("evaluate-a", work) == resolve("reinforce-a", work) == str(place)
    assert resolve(open_bundle(place).digest[:6], work) == str(place)
    with pytest.raises(ComparisonError, match=r"'evaluate' may mean .*evaluate-b2, .*evaluate-a1; give more of it"):
        resolve("evaluate", work)
    with pytest.raises(ComparisonError, match="'zzzz' is no folder .* begins so; see WORKDIR/stages"):
        resolve("zzzz", work)
    with pytest.raises(ComparisonError, match="'a1' is too short"):
        resolve("a1", work)


def test_the_last_come_oldest_first(work: Path) -> None:
    assert [Path(place).name for place in last(2, work)] == ["evaluate-a1", "evaluate-b2"]
    assert [Path(place).name for place in last(1, work)] == ["evaluate-b2"]
    with pytest.raises(ComparisonError, match="has 2 evaluations, 3 are asked for"):
        last(3, work)


def test_a_bundle_that_was_never_evaluated_says_so(work: Path, tmp_path: Path) -> None:
    folder = work / "stages" / "reinforce-c3"
    folder.mkdir()
    (folder / "x").write_text("x")
    seal(folder, "reinforced", "0")
    with pytest.raises(BundleError, match="reinforce-c3 has no evaluation in its workdir; run `rgsud evaluate`"):
        resolve(str(folder), work)
    with pytest.raises(BundleError, match="no finished 'evaluation' bundle"):
        resolve(str(tmp_path), work)


def rgsud(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["compare", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_names_or_last_but_not_both(work: Path) -> None:
    for arguments in ((), ("a1", "--last", "2")):
        with pytest.raises(ComparisonError, match="name the runs to compare, or give --last N"):
            rgsud(*arguments, "--workdir", str(work))
    assert "B is better than A" not in rgsud("--last", "2", "--workdir", str(work), "--strips", "0"), "B is b2, 30 dB"


def test_runs_in_mlflow_are_found_and_their_comparison_is_a_run_beside_them(
    work: Path, mlflow_database: Path, monkeypatch
) -> None:
    pytest.importorskip("mlflow")
    from rgsud_lib import tracking
    from rgsud_lib.tracking import mlflow_store

    monkeypatch.delenv("RGSUD_TRACKING")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    (work / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    config, children = load_config("demo"), {}
    for name in ("a1", "b2"):
        monkeypatch.setenv("RGSUD_RUN_KEY", name)
        place = work / "stages" / f"evaluate-{name}"
        with tracking.stage_run("evaluate", config, work, stage_key("evaluate", config, {"x": name})) as run:
            run.set_tags({"rgsud.bundle_path": str(place), "rgsud.bundle_digest": open_bundle(place).digest})
        children[name] = run.run_id
    client = mlflow_store.connect(work)
    parents = [client.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in children.values()]
    text = rgsud(children["a1"][:12], parents[1], "--workdir", str(work), "--strips", "0")
    assert f"  A  {work / 'stages' / 'evaluate-a1'}" in text and f"  B  {work / 'stages' / 'evaluate-b2'}" in text
    run_id = text.rpartition("MLflow  run ")[2].split(",")[0]
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED" and found.info.run_name.startswith("compare ")
    assert found.data.tags["rgsud.compares_A"] == parents[0] and f"runs/{parents[1]})" in found.data.tags[
        "mlflow.note.content"
    ]  # fmt: skip
    assert {file.path for file in client.list_artifacts(run_id)} == {"compare.html", "compare.json"}
    assert client.get_run(parents[0]).data.tags["rgsud.compared_in"] == run_id
    assert run_id in rgsud("--last", "2", "--workdir", str(work), "--strips", "0"), "the same comparison, the same run"
