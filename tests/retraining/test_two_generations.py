"""A life in two generations: run once, skip, add images, train, run again from the first model, skip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rgsud_lib import stages
from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.images import to_uint8
from rgsud_lib.data.rain import draw_rain
from rgsud_lib.retraining.new_data import check_new_data

TINY = """
derainer.width=4 derainer.encoder=[1] derainer.middle=1 derainer.decoder=[1]
method.unet_width=4 method.unet_depth=1 method.generator_width=4 method.generator_blocks=1
method.discriminator_width=4 method.discriminator_layers=1
warm_start.steps=4 warm_start.batch=2 warm_start.crop=32
training.steps=4 training.batch=2 training.crop=32 training.device=cpu training.validation_images=2
critic.enabled=false reward.scorer=rain_layer reinforcement.steps=4
new_data.min_new_images=6
retraining.keep_split=true retraining.warm_start_from_champion=true retraining.reuse_pool=true
"""


def draw(folder: Path, seeds: range, rain: bool) -> None:
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 6, 7, generator=generator)
        clean = torch.nn.functional.interpolate(coarse, size=(104, 112), mode="bicubic").clamp(0, 1)
        image = to_uint8(draw_rain(clean, seed) if rain else clean)[0]
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{seed:03}.png")


def run(config: Config, root: Path) -> dict[str, Path]:
    """All five stages, by the names of their bundles."""
    runs = root / "runs"
    dataset = stages.prepare(config, str(root / "rain"), str(root / "clean"), None, runs)
    recycled = stages.recycle(config, dataset, runs)
    reinforced = stages.reinforce(config, dataset, recycled, runs)
    evaluation = stages.evaluate(config, dataset, recycled, reinforced, runs)
    exported = stages.export(config, dataset, reinforced, evaluation, runs)
    bundles = (dataset, recycled, reinforced, evaluation, exported)
    return dict(zip(("dataset", "recycled", "reinforced", "evaluation", "export"), map(Path, bundles), strict=True))


@pytest.mark.integration
def test_run_skip_add_train_and_skip_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RGSUD_TRACKING", "off")
    config = load_config("cpu", TINY.split())
    draw(tmp_path / "clean", range(100, 106), rain=False)
    draw(tmp_path / "rain", range(10), rain=True)

    def check() -> tuple[str, tuple[str, ...]]:
        decision = check_new_data(config, str(tmp_path / "rain"), tmp_path / "runs", tmp_path / "page.html")
        return decision.answer, decision.reasons

    assert check() == ("train", ("no model yet",))
    first = run(config, tmp_path)
    assert check() == ("skip", ("no new images",))
    assert run(config, tmp_path) == first
    draw(tmp_path / "rain", range(10, 18), rain=True)
    answer, reasons = check()
    assert (answer, reasons[0]) == ("train", "8 new images, at least 6 are wanted")
    second = run(config, tmp_path)
    assert check() == ("skip", ("no new images",))
    assert run(config, tmp_path) == second

    before, after = (json.loads((folders["dataset"] / "manifest.json").read_text()) for folders in (first, second))
    sides = [{image["id"]: image["split"] for image in manifest["images"]} for manifest in (before, after)]
    assert sides[0].items() <= sides[1].items()
    assert open_bundle(second["dataset"]).inputs["earlier"] == open_bundle(first["dataset"]).digest
    assert open_bundle(second["recycled"]).inputs["reinforced"] == open_bundle(first["reinforced"]).digest
    start, end = second["recycled"] / "warm_start.safetensors", first["reinforced"] / "derainer.safetensors"
    assert start.read_bytes() == end.read_bytes()
    models = json.loads((second["evaluation"] / "metrics.json").read_text())["models"]
    assert models == ["input", "warm_start", "recycled", "reinforced"]
