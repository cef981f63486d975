from __future__ import annotations

import csv
import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rgsud_lib import tracking
from rgsud_lib.config import DerainerConfig, load_config
from rgsud_lib.data.manifest import CRITIC
from rgsud_lib.errors import BundleError, ConfigError, DataError, TrainingError
from rgsud_lib.evaluation.metrics import PSNR_LIMIT
from rgsud_lib.inference import save_derainer
from rgsud_lib.networks import build_derainer
from rgsud_lib.rewards import audit as module
from rgsud_lib.rewards.audit import audit_rewards, scoring, sources
from rgsud_lib.rewards.audit.report import summary_table
from rgsud_lib.rewards.audit.sources import find_checkpoints, find_critic
from rgsud_pipelines import cli

CONFIG = load_config("demo")
DERAINER = DerainerConfig(width=4, encoder=(1,), middle=0, decoder=(1,))
IMAGES = ("a", "b", "c", "d")
SHARES = {"half": 0.5, "most": 0.2, "little": 0.8}  # rain that the outputs still have
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.round().clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs, and folders of outputs in which a known share of the rain is left."""
    root = tmp_path_factory.mktemp("audit")
    for number, name in enumerate(IMAGES):
        ramp = np.linspace(20, 150, 72)[None, :, None]
        clean = ramp + RNG.uniform(0, 40, (64, 72, 3))
        rain = np.zeros((64, 72, 1))
        rain[:, number::6] = 60
        save(root / "pairs" / "clean" / f"{name}.png", clean)
        save(root / "pairs" / "rain" / f"{name}.png", clean + rain)
        for folder, share in SHARES.items():
            save(root / folder / f"{name}.png", clean + share * rain)
    return root


class Fake:
    """A scorer for tests: `how` turns outputs and rainy images into scores."""

    higher_is_better = True

    def __init__(self, name: str, how) -> None:
        self.name, self.version, self._how, self.seen = name, f"fake {name}", how, 0

    def __call__(self, output: torch.Tensor, rainy: torch.Tensor) -> torch.Tensor:
        self.seen += len(output)
        return self._how(output, rainy).float()


def removed(output: torch.Tensor, rainy: torch.Tensor) -> torch.Tensor:
    return (rainy - output).abs().mean(dim=(1, 2, 3))


FAKES = {
    "rain_layer": removed,
    "decorrelation": lambda output, rainy: -removed(output, rainy),
    "piqe": lambda output, rainy: torch.full((len(output),), torch.nan),
    "niqe": lambda output, rainy: torch.ones(len(output)),
}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    """Stand-ins under known names: a perfect scorer, its opposite, one that gives NaN, one that gives a constant."""
    made = {name: Fake(name, how) for name, how in FAKES.items()}
    monkeypatch.setattr(module, "build_scorer", lambda name, *rest: made[name])
    return made


def audited(data: Path, out: Path, scorers: tuple[str, ...] = ("decorrelation", "rain_layer"), folders=tuple(SHARES)):
    given = [str(data / folder) for folder in folders]
    return audit_rewards(CONFIG, str(data / "pairs"), None, [], given, scorers, out / "work", out)


def test_a_perfect_scorer_and_its_opposite(data: Path, tmp_path: Path, fakes) -> None:
    summary = audited(data, tmp_path)
    good, bad = summary["scorers"]
    assert (good["name"], bad["name"]) == ("rain_layer", "decorrelation")
    psnr = {source["name"]: source["psnr_rgb"] for source in summary["sources"]}
    assert list(psnr) == ["half", "most", "little", "input"]
    assert psnr["half"] == pytest.approx(psnr["input"] + 20 * np.log10(2), abs=0.3)
    assert [source["best_on"] for source in summary["sources"]] == [0, 4, 0, 0]
    for part in ("outputs", "with_input"):
        assert good[part]["spearman_psnr"] == {"mean": 1, "low": 1, "high": 1}
        assert good[part]["spearman_ssim"]["mean"] == 1
        assert good[part]["gain"]["mean"] == pytest.approx(psnr["most"] - psnr["little"])
        assert good[part]["regret"]["mean"] == 0
        assert bad[part]["spearman_psnr"]["mean"] == -1
    assert good["with_input"]["picks_input"] == 0
    assert bad["with_input"]["picks_input"] == bad["with_input"]["picks_input_wrongly"] == 4
    assert bad["outputs"]["gain"]["mean"] == 0  # its pick is the last source
    assert bad["with_input"]["gain"]["mean"] == pytest.approx(psnr["input"] - psnr["little"])
    assert bad["outputs"]["regret"]["mean"] == pytest.approx(psnr["most"] - psnr["little"])
    assert summary["baselines"]["oracle_psnr_rgb"] == pytest.approx(psnr["most"])
    assert summary["baselines"]["best_source"] == "most" and summary["baselines"]["last_source"] == "little"
    assert (good["first_share"], bad["first_share"]) == (1, 0)
    assert summary["verdict"]["title"] == "Use rain_layer as the reward on these images"
    assert any(
        "decorrelation likes doing nothing" in warning and "4 of 4" in warning for warning in summary["warnings"]
    )
    assert (summary["images"], summary["scenes"]) == (4, 4)
    assert any("Only 4 images:" in warning for warning in summary["warnings"])


def test_what_is_written(data: Path, tmp_path: Path, fakes) -> None:
    summary = audited(data, tmp_path)
    assert json.loads((tmp_path / "audit.json").read_text()) == summary
    with open(tmp_path / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "candidate", "psnr_rgb", "ssim_rgb", "decorrelation", "rain_layer"]
    assert [(row["image"], row["candidate"]) for row in rows[:5]] == [
        ("a", "half"), ("a", "most"), ("a", "little"), ("a", "input"), ("b", "half"),
    ]  # fmt: skip
    images = [np.asarray(Image.open(data / folder / "b.png")) / 255 for folder in ("half", "pairs/clean", "pairs/rain")]
    assert float(rows[4]["psnr_rgb"]) == pytest.approx(-10 * np.log10(np.mean((images[0] - images[1]) ** 2)), abs=1e-4)
    assert float(rows[4]["rain_layer"]) == pytest.approx(np.abs(images[0] - images[2]).mean(), abs=1e-6)
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Use rain_layer as the reward on these images</h1>" in page
    assert not re.findall(r"https?://(?!www\.w3\.org)", page)
    assert page.count("<figcaption>clean</figcaption>") == 3  # of the scorer that is wrong, none of the one that is not
    assert "Nowhere: every pick was the best output." in page
    assert len(re.findall('class="cloud"', page)) == 2 * len(IMAGES) * len(SHARES)
    table = summary_table(summary)
    assert re.search(r"rain_layer[ │]+1\.00[ │]+1\.00 to 1\.00", table)
    assert max(map(len, table.splitlines())) <= 100


def test_a_second_audit_computes_only_the_new_scorer(data: Path, tmp_path: Path, fakes, monkeypatch) -> None:
    first = audited(data, tmp_path, ("rain_layer",))
    count = len(IMAGES) * (len(SHARES) + 1)
    assert fakes["rain_layer"].seen == count
    monkeypatch.setattr(scoring.Reference, "__call__", None)
    second = audited(data, tmp_path)
    assert (fakes["rain_layer"].seen, fakes["decorrelation"].seen) == (count, count)
    assert second["scorers"][0] == first["scorers"][0]


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ("piqe", "scorer 'piqe' gave nan for image a, candidate half; expected a finite score"),
        ("niqe", "scorer 'niqe' gives all 4 candidates of each image one score, such as 1 for image a"),
    ],
)
def test_a_scorer_that_cannot_choose_is_refused(data: Path, tmp_path: Path, fakes, scorer, message) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        audited(data, tmp_path, ("rain_layer", scorer))
    assert not (tmp_path / "audit.json").exists()


def test_one_constant_image_counts_as_no_agreement(data: Path, tmp_path: Path, monkeypatch) -> None:
    with Image.open(data / "pairs" / "rain" / "c.png") as file:
        third = torch.from_numpy(np.asarray(file) / 255).permute(2, 0, 1).float()

    def constant_on_c(output: torch.Tensor, rainy: torch.Tensor) -> torch.Tensor:
        return removed(output, rainy) * (0 if torch.equal(rainy[0], third) else 1)

    monkeypatch.setattr(module, "build_scorer", lambda name, *rest: Fake(name, constant_on_c))
    summary = audited(data, tmp_path, ("rain_layer",))
    outputs = summary["scorers"][0]["outputs"]
    assert outputs["constant_images"] == 1
    assert outputs["spearman_psnr"]["mean"] == 0.75
    assert any("gives all outputs one score on 1 images" in warning for warning in summary["warnings"])


def save_model(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = build_derainer(DERAINER)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    save_derainer(model, DERAINER, path)
    return path


def test_a_workdir_gives_its_finished_stages_models(tmp_path: Path) -> None:
    stages = tmp_path / "stages"
    late, early = save_model(stages / "a-late" / "derainer.safetensors", 0), stages / "b-early"
    (stages / "a-late" / "bundle.json").write_text("{}")
    save_model(early / "derainer.safetensors", 1)
    save_model(early / "warm_start.safetensors", 2)
    (early / "bundle.json").write_text("{}")
    save_model(stages / "c-unfinished" / "derainer.safetensors", 3)
    for marker, age in ((stages / "a-late", 10), (early, 5)):
        os.utime(marker / "bundle.json", (age, age))
    assert find_checkpoints(tmp_path) == [early / "warm_start.safetensors", early / "derainer.safetensors", late]
    assert find_checkpoints(early) == [early / "derainer.safetensors"]
    with pytest.raises(BundleError, match="no model at"):
        find_checkpoints(tmp_path / "nowhere")


def test_the_newest_critic_of_the_workdirs_is_taken(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a/stages/prepare-1", "a/stages/prepare-2", "b/stages/prepare-1")]
    for age, folder in zip((3, 9, 5), files, strict=True):
        folder.mkdir(parents=True)
        (folder / CRITIC).touch()
        (folder / "bundle.json").touch()
        os.utime(folder / CRITIC, (age, age))
    assert find_critic([tmp_path / "a", tmp_path / "b"]) == files[1] / CRITIC
    assert find_critic([tmp_path / "b", tmp_path / "none"]) == files[2] / CRITIC
    assert find_critic([tmp_path]) is None
    (files[1] / "bundle.json").unlink()  # a preparation that has not ended
    assert find_critic([tmp_path / "a"]) == files[0] / CRITIC


def test_models_beside_folders_on_drawn_rain_and_on_pairs(data: Path, tmp_path: Path, fakes, monkeypatch) -> None:
    models = [save_model(tmp_path / name / "derainer.safetensors", seed) for name, seed in (("x", 0), ("y", 1))]
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(models[0].read_bytes())
    arguments = ([*models, copy, models[1]], [str(data / "half")], ("rain_layer",), tmp_path / "work", tmp_path / "out")
    summary = audit_rewards(CONFIG, str(data / "pairs"), None, *arguments)
    assert [source["name"] for source in summary["sources"]] == ["x", "y", "half", "input"]
    assert any("same weights" in warning and "copy.safetensors" in warning for warning in summary["warnings"])
    assert len({round(source["psnr_rgb"], 3) for source in summary["sources"]}) == 4

    monkeypatch.setattr(sources, "derain_image", None)  # all outputs are there already
    assert audit_rewards(CONFIG, str(data / "pairs"), None, *arguments) == summary
    monkeypatch.undo()
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    monkeypatch.setattr(module, "build_scorer", lambda name, *rest: fakes[name])
    clean = str(data / "pairs" / "clean")
    drawn = [
        audit_rewards(CONFIG, None, clean, models, [], ("rain_layer",), tmp_path / work, tmp_path / "out")
        for work in ("work", "other")
    ]
    timeless = [json.dumps(one["sources"]) + json.dumps(one["scorers"][0]["outputs"]) for one in drawn]
    assert timeless[0] == timeless[1]  # the same rain
    assert any(warning.startswith("The rain is drawn, on 4 of 4 clean images") for warning in drawn[0]["warnings"])
    rainy = next(source for source in drawn[0]["sources"] if source["name"] == "input")
    assert 5 < rainy["psnr_rgb"] < PSNR_LIMIT


def test_scorers_are_fitted_on_the_clean_images_given(data: Path, tmp_path: Path, monkeypatch) -> None:
    fitted = []

    def build(name, config, clean, critic, device):
        assert config is CONFIG and critic is None
        fitted.append([image.shape for image in clean])
        return Fake(name, removed)

    monkeypatch.setattr(module, "build_scorer", build)
    own = audited(data, tmp_path, ("rain_layer",))
    assert any("fitted on 4 of the 4 clean images" in warning for warning in own["warnings"])
    for name in ("one", "two"):
        save(tmp_path / "clean" / f"{name}.png", RNG.uniform(0, 255, (80, 90, 3)))
    folders = [str(data / folder) for folder in SHARES]
    inputs = (CONFIG, str(data / "pairs"), str(tmp_path / "clean"), [], folders, ("rain_layer",))
    other = audit_rewards(*inputs, tmp_path / "work", tmp_path)
    assert not any("fitted on" in warning for warning in other["warnings"])
    assert fitted == [[(64, 72, 3)] * 4, [(80, 90, 3)] * 2]


def test_bad_requests_are_refused_with_their_reason(data: Path, tmp_path: Path) -> None:
    pairs, out = str(data / "pairs"), (tmp_path / "work", tmp_path / "out")
    half, most = str(data / "half"), str(data / "most")
    for arguments, error, message in (
        ((None, None, [], [half, most], ["niqe"]), ConfigError, "give --pairs DIR"),
        ((None, pairs, [], [half, most], ["niqe"]), ConfigError, "give these with --pairs"),
        (
            (pairs, None, [], [half], ["niqe"]),
            ConfigError,
            "1 different sources of outputs, a ranking needs at least 2",
        ),
        ((pairs, None, [], [half, most], []), ConfigError, "--scorers names none"),
        ((pairs, None, [], [half, most], ["nique"]), ConfigError, "did you mean 'niqe'"),
        ((str(data / "half"), None, [], [half, most], ["rain_layer"]), DataError, "expected one subfolder named"),
        ((pairs, None, [tmp_path / "none"], [half], ["rain_layer"]), BundleError, "no model at"),
    ):
        with pytest.raises(error, match=message):
            audit_rewards(CONFIG, *arguments, *out)
    assert not (tmp_path / "out" / "audit.json").exists()


def test_candidates_must_fit_the_pairs(data: Path, tmp_path: Path) -> None:
    for name in IMAGES[:3]:
        save(tmp_path / "few" / f"{name}.png", np.zeros((64, 72, 3)))
        save(tmp_path / "small" / f"{name}.png", np.zeros((64, 70, 3)))
    save(tmp_path / "small" / "d.png", np.zeros((64, 72, 3)))
    for folder, message in (
        ("few", "lacks 1 of 4 images, such as d"),
        ("small", "a.png has 70x64 pixels, its pair 72x64"),
    ):
        folders = [str(data / "half"), str(tmp_path / folder)]
        with pytest.raises(DataError, match=message):
            audit_rewards(
                CONFIG, str(data / "pairs"), None, [], folders, ["rain_layer"], tmp_path / "w", tmp_path / "o"
            )


def test_a_scorer_that_needs_larger_images_is_named(data: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(output, rainy):
        raise DataError("images are too small")

    monkeypatch.setattr(module, "build_scorer", lambda name, *rest: Fake(name, refuse))
    with pytest.raises(DataError, match="scorer 'niqe' cannot score image a, candidate half: images are too small"):
        audited(data, tmp_path, ("niqe",))


def test_it_is_logged_as_a_run_of_the_workdir(data: Path, tmp_path: Path, fakes, monkeypatch) -> None:
    logged: dict = {"artifacts": [], "metrics": {}, "inputs": []}

    class Recording(tracking.StageRun):
        def log_artifact(self, path, folder=None):
            assert path.is_file()
            logged["artifacts"].append(path.name)

        def log_metrics(self, metrics):
            logged["metrics"] |= metrics

        def log_input(self, name, digest, source, context):
            logged["inputs"].append((name, context))

    @contextmanager
    def stage_run(stage, config, workdir, key):
        logged["run"] = (stage, config, workdir)
        yield Recording()

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    audited(data, tmp_path)
    assert logged["run"] == ("audit", CONFIG, tmp_path / "work")
    assert logged["artifacts"] == ["audit.json", "per_image.csv", "report.html"]
    assert logged["inputs"] == [("pairs", "audit")]
    assert logged["metrics"]["audit/rain_layer/spearman_psnr"] == 1
    assert logged["metrics"]["audit/decorrelation/with_input/gain"] < 0


def test_command_line(data: Path, tmp_path: Path) -> None:
    """With real scorers, in a workdir of its own."""
    arguments = ["audit-rewards", "--pairs", str(data / "pairs"), "--scorers", "rain_layer, decorrelation"]
    arguments += [part for folder in SHARES for part in ("--candidates", str(data / folder))]
    answer = CliRunner().invoke(cli.app, [*arguments, "--workdir", str(tmp_path)], catch_exceptions=False)
    assert answer.exit_code == 0
    summary = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert {entry["name"] for entry in summary["scorers"]} == {"rain_layer", "decorrelation"}
    assert summary["verdict"]["title"] in answer.stdout
    assert f"report  {tmp_path / 'audit' / 'report.html'}" in answer.stdout
    assert (tmp_path / "audit" / "report.html").is_file()
    refused = CliRunner().invoke(cli.app, [*arguments[:-4], "--workdir", str(tmp_path)])
    assert isinstance(refused.exception, ConfigError)


def test_the_cost_is_what_scoring_first_took(data: Path, tmp_path: Path, fakes) -> None:
    seconds = [audited(data, tmp_path, ("rain_layer",))["scorers"][0]["seconds_per_image"] for _ in range(2)]
    assert seconds[0] == seconds[1] > 0
