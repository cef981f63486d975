from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.evaluation.evaluate import evaluate_models
from rgsud_lib.evaluation.metrics import psnr_rgb, ssim_y
from rgsud_lib.evaluation.report import summary_table


@pytest.fixture(scope="module")
def evaluated(mini_run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("evaluation")
    run = mini_run
    return folder, evaluate_models(run.config, run.dataset, run.recycled, run.reinforced, folder)


@pytest.fixture(scope="module")
def unpaired(mini_run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("evaluation")
    run = mini_run
    return folder, evaluate_models(run.config, run.unpaired_dataset, run.recycled, run.reinforced, folder)


def test_metrics_of_the_do_nothing_baseline_and_of_every_stage(mini_run, evaluated: tuple[Path, dict]) -> None:
    folder, facts = evaluated
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["models"] == ["input", "warm_start", "recycled", "reinforced"]
    assert (metrics["scorer"], metrics["judge"]) == ("rain_layer", "niqe")
    data = Dataset.open(mini_run.dataset)
    assert (metrics["pairs"]["count"], metrics["pairs"]["transductive"]) == (3, len(data.manifest.transductive()))
    pairs = [[to_tensor(data.image(id)) for id in (pair.rainy, pair.clean)] for pair in data.manifest.pairs]
    expected = np.mean([psnr_rgb(rainy, clean).item() for rainy, clean in pairs])
    assert metrics["pairs"]["mean"]["input"]["psnr_rgb"] == pytest.approx(expected)
    assert facts["metrics"]["pairs/input/psnr_rgb"] == pytest.approx(expected)
    expected = np.mean([ssim_y(rainy, clean).item() for rainy, clean in pairs])
    assert metrics["pairs"]["mean"]["input"]["ssim_y"] == pytest.approx(expected)
    for model in metrics["models"]:
        assert set(metrics["pairs"]["mean"][model]) == {
            "psnr_rgb",
            "ssim_rgb",
            "psnr_y",
            "ssim_y",
            "niqe",
            "rain_layer",
        }
        assert set(metrics["held_back_rainy"]["mean"][model]) == {"niqe", "rain_layer"}
    assert metrics["pairs"]["mean"]["recycled"] == metrics["pairs"]["mean"]["warm_start"]  # the same weights here
    assert metrics["pairs"]["mean"]["recycled"] != metrics["pairs"]["mean"]["reinforced"]
    assert metrics["higher_is_better"] == {
        "psnr_rgb": True, "ssim_rgb": True, "psnr_y": True, "ssim_y": True, "niqe": False, "rain_layer": True,
    }  # fmt: skip
    assert metrics["pairs"]["mean"]["input"]["niqe"] > 0  # as published: a distance


def test_transductive_is_marked_wherever_a_result_is_shown(evaluated: tuple[Path, dict]) -> None:
    folder, facts = evaluated
    note = f"{facts['pairs']['transductive']} of 3 rainy inputs were trained on"
    assert not note.startswith("0")
    assert any(note in warning for warning in facts["warnings"])
    page = (folder / "report.html").read_text()
    assert page.count(f'class="badge">transductive: {note}') == 2  # at the headline and at the table
    assert note in summary_table(json.loads((folder / "metrics.json").read_text()))


def test_per_image_table(evaluated: tuple[Path, dict]) -> None:
    folder, _ = evaluated
    with open(folder / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(rows) == 4 * (3 + metrics["held_back_rainy"]["count"])
    own = [float(row["psnr_rgb"]) for row in rows if row["group"] == "pairs" and row["model"] == "reinforced"]
    assert np.mean(own) == pytest.approx(metrics["pairs"]["mean"]["reinforced"]["psnr_rgb"])
    assert {row["transductive"] for row in rows if row["group"] == "held_back_rainy"} == {"False"}
    assert all(row["psnr_rgb"] == "" for row in rows if row["group"] == "held_back_rainy")


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))


def test_report_is_self_contained_and_shows_best_median_and_worst(evaluated: tuple[Path, dict]) -> None:
    folder, facts = evaluated
    text = (folder / "report.html").read_text()
    page = Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"] for image in images)
    assert not [
        tag for tag, attributes in page.tags if tag in ("link", "iframe") or "src" in attributes and tag == "script"
    ]
    assert not re.findall(r"https?://(?!www\.w3\.org)", text)
    ranks = re.findall(r"<b>(largest gain|median gain|smallest gain|largest loss)</b>", text)
    assert len(ranks) == 3
    assert ranks[1] == "median gain"
    captions = re.findall(r"<figcaption>(before|derained|reward|clean)</figcaption>", text)
    assert captions.count("derained") == captions.count("clean") == 3
    judged = re.findall(r"<b>(\d+) of \d+ judged</b>", text)
    assert [int(place) for place in judged] == list(range(1, len(judged) + 1)) and judged
    # of three training images, of those the judge doubts, and in the strips
    assert captions.count("reward") == 3 + len(judged) + facts["pairs"]["transductive"]
    assert "Reward pool: mean score" in text


def test_the_rewards_the_judge_likes_least_come_first(mini_run, evaluated: tuple[Path, dict]) -> None:
    folder, _ = evaluated
    text = (folder / "report.html").read_text().split("Rewards to doubt")[1]
    changes = [float(value) for value in re.findall(r"NIQE ([+-][\d.]+), score", text)]
    trained = Dataset.open(mini_run.dataset).select("rainy", "train")
    assert len(changes) == len(trained) and changes == sorted(changes, reverse=True)  # a higher NIQE is worse


def test_without_pairs_only_the_held_back_images_and_no_reference_scores(unpaired: tuple[Path, dict]) -> None:
    folder, facts = unpaired
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["pairs"] is None
    assert set(facts["metrics"]) == {
        f"held_back_rainy/{model}/{name}" for model in metrics["models"] for name in ("niqe", "rain_layer")
    }
    text = (folder / "report.html").read_text()
    assert "there are no clean originals to compare with" in text
    assert ">clean</figcaption>" not in text
    assert "PSNR RGB" not in text.split("<script>")[0].split("Training</h2>")[0]


def test_contact_sheet(evaluated: tuple[Path, dict], unpaired: tuple[Path, dict]) -> None:
    with Image.open(evaluated[0] / "strip.png") as paired, Image.open(unpaired[0] / "strip.png") as single:
        assert paired.format == "PNG"
        assert paired.width > 1.4 * single.width  # three columns against two


def test_evaluation_is_reproducible(mini_run, evaluated: tuple[Path, dict], tmp_path: Path) -> None:
    evaluate_models(mini_run.config, mini_run.dataset, mini_run.recycled, mini_run.reinforced, tmp_path)
    for name in ("metrics.json", "per_image.csv", "strip.png"):
        assert (tmp_path / name).read_bytes() == (evaluated[0] / name).read_bytes()


def test_terminal_table_marks_the_best(evaluated: tuple[Path, dict]) -> None:
    metrics = json.loads((evaluated[0] / "metrics.json").read_text())
    metrics["pairs"]["mean"]["reinforced"] |= {"psnr_rgb": 99.0, "niqe": 0.01}
    table = summary_table(metrics)
    row = next(line for line in table.splitlines() if "stage 2" in line)
    assert "99.00*" in row
    assert "0.01*" in row
    assert max(map(len, table.splitlines())) <= 100
