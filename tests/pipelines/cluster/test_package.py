"""What is sent is checked first: the image, the settings, the places."""

import json
from pathlib import Path

import pytest
from kfp import compiler, dsl

from rgsud_lib.config import load_config
from rgsud_lib.errors import ConfigError
from rgsud_pipelines.cluster import package
from rgsud_pipelines.cluster.package import Package, compile_package, run_parameters

from .conftest import PINNED

PLACES = {"rainy": "s3://photos/rain", "clean": "s3://photos/clean", "workdir": "s3://photos/rgsud/main"}


@dsl.component(base_image=PINNED, install_kfp_package=False)
def step(text: str) -> str:
    return text


@dsl.pipeline(name="nested")
def nested(config: str):
    with dsl.ExitHandler(step(text="end")):
        first = step(text=config)
        with dsl.If(first.output == "go"):
            step(text="guarded").set_caching_options(False)


@pytest.fixture
def with_nested(monkeypatch) -> None:
    def compile_nested(pipeline: str, placement: str, folder: Path) -> Path:
        compiler.Compiler().compile(nested, str(folder / "nested.yaml"))
        with open(folder / "nested.yaml", "a") as file:
            file.write("\n---\nplatforms: {}\n")
        return folder / "nested.yaml"

    monkeypatch.setattr(package, "compile_one", compile_nested)


def cached(sent: Package) -> list[bool]:
    """Whether each task of each graph is cached, by task name."""
    components = sent.spec["pipeline_spec"]["components"].values()
    dags = [sent.spec["pipeline_spec"]["root"]["dag"], *(part["dag"] for part in components if "dag" in part)]
    tasks = sorted((name, task) for dag in dags for name, task in dag["tasks"].items())
    return [task.get("cachingOptions", {}).get("enableCache", False) for _, task in tasks]


def test_without_cache_no_task_is_cached_in_any_graph(with_nested) -> None:
    assert cached(compile_package("nested", "gpu", cache=True)).count(True) > 1
    sent = compile_package("nested", "gpu", cache=False)
    assert cached(sent) == [False] * 5  # three tasks, the exit handler's graph and the condition's
    assert "enableCache: false" in sent.text


def test_with_cache_each_task_keeps_its_own_setting(with_nested) -> None:
    assert False in cached(compile_package("nested", "gpu", cache=True))


def test_an_image_that_a_cluster_cannot_trust_is_refused(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"localhost/rgsud-python:development.*set RGSUD_IMAGE=registry/rgsud@sha256"):
        compile_package("training", "cpu")


def test_an_unknown_pipeline_is_refused(pinned) -> None:
    with pytest.raises(ConfigError, match="unknown pipeline 'trainign'; choose one of training"):
        compile_package("trainign", "cpu")


def test_the_version_names_code_and_content() -> None:
    first = Package("rgsud-training", "a: 1")
    assert first.version == Package("rgsud-training", "a: 1").version != Package("rgsud-training", "a: 2").version
    assert first.version.startswith("0.")


@pytest.fixture(scope="module")
def spec() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "PINNED", package.re.compile(".*"))
        return compile_package("training", "cpu").spec


def test_the_settings_travel_as_one_document(spec) -> None:
    config = load_config("demo", ["training.seed=7"])
    parameters = run_parameters(spec, config, paired=None, **PLACES)
    assert json.loads(parameters.pop("config"))["training"]["seed"] == 7
    assert parameters == PLACES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rainy": "my/rain"}, r"--rainy 'my/rain' is a path of this machine.*s3://bucket/prefix"),
        ({"clean": "/home/me/clean"}, r"--clean '/home/me/clean' is a path of this machine"),
        ({"workdir": "s3://bucket"}, r"--workdir 's3://bucket': expected s3://bucket/prefix"),
        ({"workdir": "s3://bucket/"}, r"--workdir 's3://bucket/': expected s3://bucket/prefix"),
        ({"rainy": "s3:///rain"}, r"--rainy 's3:///rain': expected s3://bucket/prefix"),
        ({"rainy": "gs://bucket/rain"}, r"--rainy 'gs://bucket/rain' is a path of this machine"),
        ({"rainy": None, "workdir": None}, "rgsud-training needs --rainy and --workdir"),
        ({"champion": "s3://photos/model"}, "--champion: rgsud-training has no such parameter; leave it out"),
    ],
)
def test_a_place_that_pods_cannot_see_is_refused(spec, change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        run_parameters(spec, load_config("demo"), **{**PLACES, **change})
