"""CLIP-IQA scores as published: attention pooling without positional embedding, antonym pairs, whole images.

No published weights here: a small CLIP of the same kind (modified ResNet, quick GELU) has random ones.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from rgsud_lib.config import ClipIqaConfig
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.rewards import clip_iqa
from rgsud_lib.rewards.clip_iqa import ClipIqa, PlainAttentionPool
from rgsud_lib.rewards.clip_prompts import build_clip

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

NAME = "small-clip-iqa"
SMALL = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
PAIRS = (("Good photo.", "Bad photo."), ("Sharp photo.", "Blurry photo."))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / f"{NAME}.json"
    path.write_text(json.dumps(SMALL))
    open_clip.add_model_config(path)
    return path


@pytest.fixture(scope="module")
def model(model_file: Path) -> nn.Module:
    torch.manual_seed(0)
    model = build_clip(NAME)
    for parameter in model.visual.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.logit_scale.fill_(math.log(30.0))
    return model


@pytest.fixture(scope="module")
def checkpoint(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "rn50.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Three images of no round size."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 3, 9, 12, generator=generator)
    return F.interpolate(coarse, (75, 131), mode="bicubic").clamp(0, 1)


def load(path: Path, **fields: object) -> ClipIqa:
    return ClipIqa.load(ClipIqaConfig(checkpoint=str(path), **fields), "cpu", NAME)


@pytest.fixture(scope="module")
def scorer(checkpoint: Path) -> ClipIqa:
    return load(checkpoint)


def image_feature(visual: nn.Module, image: Tensor) -> Tensor:
    """The official pooling, head by head and without positional embedding, in float64."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    features = visual.stem(((image - mean) / deviation)[None])
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        features = layer(features)
    positions = features[0].flatten(1).T.double()
    tokens = [positions.mean(0), *positions]
    pool = visual.attnpool

    def project(linear: nn.Linear, token: Tensor) -> Tensor:
        return linear.weight.double() @ token + linear.bias.double()

    query = project(pool.q_proj, tokens[0]).view(pool.num_heads, -1)
    keys = [project(pool.k_proj, token).view(pool.num_heads, -1) for token in tokens]
    values = [project(pool.v_proj, token).view(pool.num_heads, -1) for token in tokens]
    heads = []
    for head in range(pool.num_heads):
        fits = torch.stack([query[head] @ key[head] for key in keys]) / math.sqrt(query.shape[1])
        heads.append(sum(weight * value[head] for weight, value in zip(fits.softmax(0), values, strict=True)))
    return project(pool.c_proj, torch.cat(heads))


def reference(model: nn.Module, image: Tensor, pairs: tuple[tuple[str, str], ...]) -> float:
    tokenizer, seen = open_clip.get_tokenizer(NAME), image_feature(model.visual, image)
    good_ones = []
    for pair in pairs:
        words = [model.encode_text(tokenizer([prompt]))[0].double() for prompt in pair]
        good, bad = (30 * float(seen @ word / (seen.norm() * word.norm())) for word in words)
        good_ones.append(1 / (1 + math.exp(bad - good)))
    return sum(good_ones) / len(good_ones)


@pytest.mark.parametrize("pairs", [PAIRS[:1], PAIRS])
def test_the_score_is_the_mean_probability_of_the_good_prompts(
    checkpoint: Path, model: nn.Module, images: Tensor, pairs: tuple
) -> None:
    expected = [reference(model, image, pairs) for image in images]
    assert all(0.01 < score < 0.99 for score in expected)
    assert load(checkpoint, pairs=pairs)(images).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_default_prompts_are_the_published_ones(checkpoint: Path, images: Tensor) -> None:
    assert torch.equal(load(checkpoint, pairs=PAIRS[:1])(images), load(checkpoint)(images))


def test_the_pooling_is_open_clips_with_a_positional_embedding_of_zero(model: nn.Module) -> None:
    features = torch.randn(2, 256, 2, 2, generator=torch.Generator().manual_seed(0))
    stock = open_clip.modified_resnet.AttentionPool2d(2, 256, model.visual.attnpool.num_heads, 24)
    stock.load_state_dict(model.visual.attnpool.state_dict())
    assert not torch.allclose(PlainAttentionPool(stock)(features), stock(features), atol=1e-3)
    nn.init.zeros_(stock.positional_embedding)
    torch.testing.assert_close(PlainAttentionPool(stock)(features), stock(features), atol=1e-6, rtol=1e-5)


def test_the_openai_weights_are_those_of_open_clips_tag() -> None:
    published = open_clip.get_pretrained_cfg("RN50", "openai")
    assert f"hf://{published['hf_hub']}{open_clip.constants.HF_SAFE_WEIGHTS_NAME}" == clip_iqa.OPENAI
    assert published["quick_gelu"] and open_clip.get_model_config(clip_iqa.ARCHITECTURE)["quick_gelu"]


def test_the_openai_weights_are_refused_at_once_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(BundleError) as caught:
        ClipIqa.load(ClipIqaConfig(), "cpu")
    assert time.monotonic() - started < 5
    for part in ("open_clip_model.safetensors of timm/resnet50_clip.openai", str(tmp_path), "HF_HUB_OFFLINE",
                 "--set scorers.clip_iqa.checkpoint=/path/to/open_clip_model.safetensors"):  # fmt: skip
        assert part in str(caught.value)


def test_misfitting_weights_are_refused_and_the_keys_named(model: nn.Module, tmp_path: Path) -> None:
    state = {**model.state_dict(), "visual.extra": torch.ones(1), "visual.conv1.weight": torch.ones(1)}
    del state["text_projection"]
    torch.save(state, tmp_path / "rn50.pt")
    with pytest.raises(BundleError) as caught:
        load(tmp_path / "rn50.pt")
    for part in (
        "missing: text_projection",
        "unknown: visual.extra",
        "visual.conv1.weight (1,) instead of (4, 3, 3, 3)",
    ):
        assert part in str(caught.value)


def test_an_architecture_that_open_clip_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match="knows no model 'RN7'"):
        build_clip("RN7")


def test_a_wrong_digest_is_refused(checkpoint: Path) -> None:
    with pytest.raises(BundleError, match="expected ffff.*correct scorers.clip_iqa.sha256"):
        load(checkpoint, sha256="f" * 64)


def test_a_batch_scores_as_its_images_one_by_one(scorer: ClipIqa, images: Tensor) -> None:
    together = scorer(images)
    assert together.dtype == torch.float32 and len(set(together.tolist())) == 3
    assert torch.equal(together, torch.cat([scorer(images[index : index + 1]) for index in range(3)]))


def test_any_size_from_32_pixels_is_scored(scorer: ClipIqa) -> None:
    for height, width in ((32, 32), (33, 200)):
        assert torch.isfinite(scorer(torch.full((1, 3, height, width), 0.5))).all()
    with pytest.raises(DataError, match="at least 32 x 32 pixels, got 31 x 200"):
        scorer(torch.full((1, 3, 31, 200), 0.5))


def test_images_out_of_range_are_refused(scorer: ClipIqa, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"output spans .* clamp or divide by 255"):
        scorer(images * 255)


def test_the_version_follows_weights_and_prompts(
    scorer: ClipIqa, model: nn.Module, checkpoint: Path, tmp_path: Path
) -> None:
    save_file({**model.state_dict(), "text_projection": torch.zeros(16, 24)}, tmp_path / "rn50.safetensors")
    assert load(checkpoint).version == scorer.version
    others = [load(checkpoint, pairs=PAIRS).version, load(tmp_path / "rn50.safetensors").version]
    assert len({scorer.version, *others}) == 3


SCORE = """
import sys, torch, open_clip
torch.set_num_threads(1)
open_clip.add_model_config(sys.argv[1])
from rgsud_lib.config import ClipIqaConfig
from rgsud_lib.rewards.clip_iqa import ClipIqa
scorer = ClipIqa.load(ClipIqaConfig(checkpoint=sys.argv[2]), "cpu", "small-clip-iqa")
print(scorer.version, *(score.hex() for score in scorer(torch.load(sys.argv[3])).tolist()))
"""


def test_another_process_gets_the_same_bits(
    scorer: ClipIqa, model_file: Path, checkpoint: Path, images: Tensor, tmp_path: Path
) -> None:
    torch.save(images, tmp_path / "images.pt")
    arguments = [sys.executable, "-c", SCORE, str(model_file), str(checkpoint), str(tmp_path / "images.pt")]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [scorer.version, *(score.hex() for score in scorer(images).tolist())]
