"""The compiled training pipeline, run by KFP in containers of the real image, on a real S3 server and MLflow.

What is asserted lies in S3, in MLflow and in the containers' exit codes; the runner's own word counts for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from cluster import COMPILED, Cluster, Outcome
from PIL import Image

from rgsud_lib.data.demo import make_demo_data
from rgsud_lib.storage import listing, remote

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

TRAINING, RETRAINING = COMPILED / "training-cpu.yaml", COMPILED / "retraining-cpu.yaml"
STAGES = ("prepare", "recycle", "reinforce", "evaluate", "export")
KEPT = 4  # rainy photographs at first; as many clean ones
SIDE = 200  # pixels: the judge's model needs some blocks of 96


@pytest.fixture(scope="module")
def cluster(docker_daemon, rgsud_image, mlflow_server, s3, tmp_path_factory) -> Iterator[Cluster]:
    """A few of the demo's photographs in a bucket, and nothing else."""
    folder = tmp_path_factory.mktemp("cluster")
    make_demo_data(folder / "data")
    s3.create_bucket(Bucket="pipeline")
    for name, kept in (("rainy", KEPT), ("clean", KEPT), ("paired/rain", 1), ("paired/clean", 1)):
        for file in sorted((folder / "data" / name).iterdir())[:kept]:
            Image.open(file).crop((0, 0, SIDE, SIDE)).save(file)
            s3.upload_file(str(file), "pipeline", f"data/{name}/{file.name}")
    yield Cluster(docker_daemon, mlflow_server, "pipeline", folder)
    for container in docker_daemon.client.containers.list(all=True, filters={"label": "run"}):
        container.remove()


@pytest.fixture(scope="module")
def first(cluster: Cluster) -> Outcome:
    return cluster.run("first", TRAINING)


def test_a_run_leaves_results_in_s3_and_runs_in_mlflow(
    cluster, first, rgsud_image, monkeypatch, tmp_path, capsys
) -> None:
    assert first.code == 0, first.log[-3000:]
    with capsys.disabled():
        print(f"\nfirst run: {first.seconds:.0f} s")
    assert set(cluster.exit_codes("first").values()) == {0}
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path))
    bundles = {name.partition("-")[0]: (name, bundle) for name, bundle in cluster.bundles().items()}
    assert sorted(bundles) == sorted(STAGES)
    runs = cluster.children("first")
    assert cluster.parent("first").info.status == "FINISHED"
    for stage, (name, bundle) in bundles.items():
        assert remote.pulled(f"{cluster.work}/stages/{name}").is_dir()  # every file is there and has its digest
        assert runs[stage].info.status == "FINISHED"
        assert runs[stage].data.tags["rgsud.bundle_digest"] == bundle.digest
    assert runs["recycle"].data.metrics["loss/derain"] > 0
    labels = cluster.daemon.client.images.get(rgsud_image.name).labels
    assert runs["recycle"].data.tags["mlflow.source.git.commit"] == labels["org.opencontainers.image.revision"]
    artifacts = {file.name.rpartition("/")[2] for file in listing.list_files(f"s3://{cluster.mlflow.bucket}/artifacts")}
    assert {"report.html", "model_card.md"} <= artifacts


def test_kfp_artifacts_are_pointers(cluster, first) -> None:
    files = [file for file in (cluster.folder / "first").rglob("*") if file.is_file()]
    assert files and sum(file.stat().st_size for file in files) < 1_000_000


def test_the_same_again_trains_nothing_and_has_a_parent_run_of_its_own(cluster, first, capsys) -> None:
    before = {file.name: file.tag for file in listing.list_files(f"{cluster.work}/stages")}
    second = cluster.run("second", TRAINING)
    assert second.code == 0, second.log[-3000:]
    with capsys.disabled():
        print(f"\nsecond run: {second.seconds:.0f} s")
    assert {file.name: file.tag for file in listing.list_files(f"{cluster.work}/stages")} == before
    assert cluster.parent("second").info.status == "FINISHED"
    assert cluster.parent("second").info.run_id != cluster.parent("first").info.run_id
    assert not set(STAGES) & set(cluster.children("second"))


def broken(tmp_path: Path, executor: str) -> Path:
    """The compiled pipeline with one container that exits 3, and without the pauses between attempts."""
    documents = list(yaml.safe_load_all(TRAINING.read_text()))
    container = documents[0]["deploymentSpec"]["executors"][executor]["container"]
    container.update(command=["sh", "-c", "exit 3"], args=[])
    for component in (documents[0]["root"], *documents[0]["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def test_a_stage_that_exits_3_fails_the_run_everywhere(cluster, first, tmp_path: Path) -> None:
    failed = cluster.run("exit3", broken(tmp_path, "exec-sr-training"), "reinforcement.steps=9")
    assert failed.code != 0
    codes = cluster.exit_codes("exit3")
    assert codes["sh -c exit 3"] == 3
    assert "evaluation" not in codes and codes["finalize"] == 0
    assert cluster.parent("exit3").info.status == "FAILED"
    report = cluster.report("exit3")
    stages = {row["stage"]: row["status"] for row in report["stages"]}
    assert report["status"] == "FAILED"
    assert stages["recycle"] == "EARLIER" and {stages[name] for name in STAGES[2:]} == {"ABSENT"}
    assert not any(name.startswith("reinforce-") and b.facts.get("steps") == 9 for name, b in cluster.bundles().items())


def test_a_run_outlives_ten_seconds_without_s3(cluster, first, s3_server) -> None:
    """The server is killed as a stage begins, and comes back ten seconds after the stage has noticed."""
    with ThreadPoolExecutor() as pool:
        started = pool.submit(cluster.run, "outage", TRAINING, "training.seed=1")
        try:
            await_log(cluster, "reward_recycling", "")
            s3_server.stop()
            await_log(cluster, "reward_recycling", "the server does not answer")
            time.sleep(10)
        finally:
            s3_server.start()
        outcome = started.result()
    assert outcome.code == 0, outcome.log[-3000:]
    assert set(cluster.exit_codes("outage").values()) == {0}
    assert cluster.parent("outage").info.status == "FINISHED"
    assert {"recycle", "reinforce", "evaluate", "export"} <= set(cluster.children("outage"))


def await_log(cluster: Cluster, component: str, words: str) -> None:
    """Return once a container of the run "outage" is there and has said `words`."""
    deadline = time.monotonic() + 600
    while True:
        logs = (container.logs().decode(errors="replace") for container in cluster.containers("outage", component))
        if any(words in log for log in logs):
            return
        assert time.monotonic() < deadline, f"{component} never said {words!r}"
        time.sleep(0.2)


def test_a_wrong_secret_is_named_and_not_shown(cluster, tmp_path: Path) -> None:
    failed = cluster.run("secret", broken(tmp_path, "exec-export"), AWS_SECRET_ACCESS_KEY="not-the-secret-at-all")
    assert failed.code != 0
    assert "the secret does not match the access key; check AWS_SECRET_ACCESS_KEY" in failed.log
    assert "not-the-secret-at-all" not in failed.log
    codes = cluster.exit_codes("secret")
    assert codes.pop("finalize") == 0 and 0 not in codes.values()
    assert cluster.parent("secret").info.status == "FAILED"


def test_new_rain_is_trained_on_once(cluster, first, s3) -> None:
    """Without new images a retraining looks and stops; with some it trains, and has learnt from them then."""
    settings = ("new_data.min_new_images=2", "retraining.keep_split=true")

    def retrain(run_id: str) -> tuple[str, set[str]]:
        outcome = cluster.run(run_id, RETRAINING, *settings)
        assert outcome.code == 0, outcome.log[-3000:]
        assert cluster.parent(run_id).info.status == "FINISHED"
        return cluster.children(run_id)["new_data_check"].data.tags["rgsud.decision"], set(cluster.exit_codes(run_id))

    assert retrain("unchanged") == ("skip", {"new_data_check", "finalize"})
    for file in sorted((cluster.folder / "data" / "rainy").iterdir())[KEPT : KEPT + 2]:
        s3.upload_file(str(file), "pipeline", f"data/rainy/{file.name}")
    decision, components = retrain("more-rain")
    assert decision == "train" and {"reward_recycling", "sr_training", "export", "promotion_gate"} <= components
    assert retrain("no-more-rain") == ("skip", {"new_data_check", "finalize"})
