"""DACLIP-IQA reads DA-CLIP's checkpoints strictly and scores as its definition says.

No published weights here: a small DA-CLIP with the same layers, so the same key names, has random ones.
"""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rgsud_lib.config import DaclipConfig
from rgsud_lib.errors import BundleError
from rgsud_lib.rewards.clip_prompts import build_clip
from rgsud_lib.rewards.daclip import Daclip, checkpoint_shapes, views

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

SIDE = 64
SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": SIDE, "layers": 12, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 12},
}
PAIRS = (("clean photo", "rainy photo"), ("sharp", "blurry"))


class ControlTransformer(nn.Module):
    """As DA-CLIP's: a transformer with one output into each of CLIP's layers (unused here)."""

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.transformer = transformer
        self.zero_modules = nn.ModuleList(nn.Linear(64, 64) for _ in range(12))

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return self.transformer(tokens)


class DaClip(nn.Module):
    """The module whose state dict DA-CLIP publishes."""

    def __init__(self, clip: nn.Module):
        super().__init__()
        self.clip = clip
        self.visual = clip.visual
        self.visual_control = copy.deepcopy(clip.visual)
        self.visual_control.transformer = ControlTransformer(self.visual_control.transformer)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(100.0)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model configuration file, known to open_clip by its name."""
    path = tmp_path_factory.mktemp("models") / "small-daclip.json"
    path.write_text(json.dumps(SMALL))
    open_clip.add_model_config(path)
    return path


@pytest.fixture(scope="module")
def model(small: Path) -> DaClip:
    torch.manual_seed(0)
    model = DaClip(build_clip(small.stem)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def checkpoint(model: DaClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "daclip.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Three images, larger than a crop in both directions."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 3, 9, 12, generator=generator)
    return nn.functional.interpolate(coarse, (81, 118), mode="bicubic").clamp(0, 1)


def settings(path: Path, **fields: object) -> DaclipConfig:
    return DaclipConfig(checkpoint=str(path), crops=2).model_copy(update={"architecture": "small-daclip", **fields})


def load(path: Path, **fields: object) -> Daclip:
    return Daclip.load(settings(path, **fields), "cpu")


@pytest.fixture(scope="module")
def scorer(checkpoint: Path) -> Daclip:
    return load(checkpoint)


def reference(model: DaClip, image: Tensor, tower: nn.Module, prompts: list[str]) -> list[list[float]]:
    """100 * cosine of each view (whole last) and each prompt, one by one."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    tokenizer = open_clip.get_tokenizer("small-daclip")
    logits = []
    for view in views(image, SIDE, 2):
        seen = tower((view[None] - mean) / deviation)[0].double()
        words = [model.clip.encode_text(tokenizer([prompt]))[0].double() for prompt in prompts]
        logits.append([100 * float(seen @ word / (seen.norm() * word.norm())) for word in words])
    return logits


def softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def test_the_published_architectures_have_the_published_number_of_keys(model: DaClip) -> None:
    with torch.device("meta"):
        base, large = (checkpoint_shapes(build_clip(name)) for name in ("ViT-B-32", "ViT-L-14"))
    assert len(base) == 631
    assert base.keys() == model.state_dict().keys()
    assert base["visual_control.transformer.transformer.resblocks.11.mlp.c_fc.weight"] == (3072, 768)
    assert base["visual_control.transformer.zero_modules.11.weight"] == (768, 768)
    assert large["clip.visual.conv1.weight"] == (1024, 3, 14, 14)
    assert len(large) == 631 + 12 * (3 * 12 + 2)  # twelve more layers in three image towers


def test_the_score_is_one_minus_the_probability_of_the_degradations(
    scorer: Daclip, model: DaClip, images: Tensor
) -> None:
    words = DaclipConfig().words
    logits = reference(model, images[:1], model.visual_control, list(words))
    expected = sum(1 - softmax(view)[words.index("rainy")] for view in logits) / 3
    assert 0.01 < expected < 0.99
    assert float(scorer(images[:1])) == pytest.approx(expected, abs=1e-4)


def test_several_words_may_count_against_an_image(checkpoint: Path, model: DaClip, images: Tensor) -> None:
    words, bad = ("rainy", "raindrop", "noisy"), ("raindrop", "rainy")
    logits = reference(model, images[1:2], model.visual_control, list(words))
    expected = sum(softmax(view)[2] for view in logits) / 3
    score = float(load(checkpoint, words=words, degradations=bad)(images[1:2]))
    assert score == pytest.approx(expected, abs=1e-4)


def test_pairs_are_compared_with_the_plain_image_tower(checkpoint: Path, model: DaClip, images: Tensor) -> None:
    logits = reference(model, images[:1], model.clip.visual, [prompt for pair in PAIRS for prompt in pair])
    expected = sum((softmax(view[:2])[0] + softmax(view[2:])[0]) / 2 for view in logits) / 3
    assert 0.01 < expected < 0.99
    assert float(load(checkpoint, pairs=PAIRS)(images[:1])) == pytest.approx(expected, abs=1e-4)


def test_wrapped_checkpoints_score_the_same(scorer: Daclip, model: DaClip, images: Tensor, tmp_path: Path) -> None:
    wrapped = {"epoch": 30, "state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}
    torch.save(wrapped, tmp_path / "epoch_30.pt")
    assert torch.equal(load(tmp_path / "epoch_30.pt")(images), scorer(images))


def test_the_second_copy_of_the_image_tower_and_the_zero_modules_do_not_matter(
    scorer: Daclip, model: DaClip, images: Tensor, tmp_path: Path
) -> None:
    ignored = ("visual.", "visual_control.transformer.zero_modules.", "logit_scale")
    state = {
        key: torch.zeros_like(value) if key.startswith(ignored) else value for key, value in model.state_dict().items()
    }
    assert any(not torch.equal(state[key], value) for key, value in model.state_dict().items())
    torch.save(state, tmp_path / "daclip.pt")
    assert torch.equal(load(tmp_path / "daclip.pt")(images), scorer(images))


def without(key: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("clip.ln_final.bias"), "1 missing: clip.ln_final.bias"),
        (without("visual_control.transformer.zero_modules.3.bias"), "visual_control.transformer.zero_modules.3.bias"),
        (without("visual.proj"), "1 missing: visual.proj"),
        (without("logit_scale"), "1 missing: logit_scale"),
        (lambda state: {**state, "clip.extra": torch.ones(1)}, "1 unknown: clip.extra"),
        (
            lambda state: {**state, "visual_control.proj": torch.ones(64, 23)},
            r"1 of another shape: visual_control.proj \(64, 23\) instead of \(64, 24\)",
        ),
    ],
)
def test_any_other_layout_is_refused_and_the_key_named(
    model: DaClip, tmp_path: Path, change: Callable, said: str
) -> None:
    torch.save(change(model.state_dict()), tmp_path / "daclip.pt")
    with pytest.raises(BundleError, match=f"daclip.pt does not fit the model.*{said}"):
        load(tmp_path / "daclip.pt")


def test_a_plain_clip_is_refused(model: DaClip, tmp_path: Path) -> None:
    torch.save(model.clip.state_dict(), tmp_path / "clip.pt")
    with pytest.raises(BundleError, match=r"302 keys, 631 expected.*does the file belong to this architecture\?"):
        load(tmp_path / "clip.pt")


def test_the_message_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="--set scorers.daclip.checkpoint=/path/to/absent.pt"):
        load(tmp_path / "absent.pt")


def test_a_batch_scores_as_its_images_one_by_one(scorer: Daclip, images: Tensor) -> None:
    together = scorer(images)
    assert together.dtype == torch.float32 and len(set(together.tolist())) == 3
    assert torch.equal(together, torch.cat([scorer(images[index : index + 1]) for index in range(3)]))


def test_a_callers_autocast_does_not_change_a_score_on_a_cpu(scorer: Daclip, images: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = scorer(images[:1])
    assert torch.equal(mixed, scorer(images[:1]))


def test_views_are_native_crops_and_the_whole(images: Tensor) -> None:
    seen = views(images[:1], SIDE, 5)
    assert seen.shape == (6, 3, SIDE, SIDE)
    windows = images[0].unfold(1, SIDE, 1).unfold(2, SIDE, 1)  # 3 x rows x columns x SIDE x SIDE
    places = [(windows == crop[:, None, None]).all(dim=(0, 3, 4)).nonzero().tolist() for crop in seen[:5]]
    assert all(len(found) == 1 for found in places)
    assert places[0] == [[8, 27]]  # the middle: (81 - 64) / 2 rounded to even, (118 - 64) / 2
    assert len({tuple(found[0]) for found in places}) == 5
    columns = sorted(found[0][1] for found in places)
    assert columns[0] < 54 / 4 and columns[-1] > 54 * 3 / 4
    whole = nn.functional.interpolate(images[:1], (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(seen[5:], whole)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (20, 100), (100, 20), (SIDE, SIDE), (63, 1000)])
def test_small_and_narrow_images_are_seen_whole(height: int, width: int) -> None:
    image = torch.linspace(0, 1, height * width).view(1, 1, height, width).expand(1, 3, -1, -1)
    seen = views(image, SIDE, 3)
    assert seen.shape == (4, 3, SIDE, SIDE)
    assert seen.min() >= 0 and seen.max() <= 1
    if height == width == SIDE:
        assert all(torch.equal(view, image[0]) for view in seen[:3])


def test_no_crops_leave_the_whole_image(checkpoint: Path, scorer: Daclip, images: Tensor) -> None:
    whole = load(checkpoint, crops=0)(images)
    assert torch.isfinite(whole).all() and not torch.equal(whole, scorer(images))


def test_the_version_follows_weights_and_settings(
    scorer: Daclip, checkpoint: Path, model: DaClip, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.pt"
    moved.write_bytes(checkpoint.read_bytes())
    assert load(moved).version == scorer.version
    assert len(scorer.version) == 16
    changed = {**model.state_dict(), "clip.ln_final.bias": torch.zeros(16)}
    torch.save(changed, tmp_path / "changed.pt")
    others = [load(tmp_path / "changed.pt"), load(checkpoint, crops=3), load(checkpoint, pairs=PAIRS)]
    assert len({scorer.version, *(other.version for other in others)}) == 4


def test_images_out_of_range_are_refused(scorer: Daclip, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"output spans .* clamp or divide by 255"):
        scorer(images * 255)


SCORE = """
import sys, torch, open_clip
torch.set_num_threads(1)
open_clip.add_model_config(sys.argv[1])
from rgsud_lib.config import DaclipConfig
from rgsud_lib.rewards.daclip import Daclip
config = DaclipConfig(checkpoint=sys.argv[2], crops=2).model_copy(update={"architecture": "small-daclip"})
scorer = Daclip.load(config, "cpu")
print(scorer.version, *(score.hex() for score in scorer(torch.load(sys.argv[3])).tolist()))
"""


def test_another_process_gets_the_same_bits(
    scorer: Daclip, small: Path, checkpoint: Path, images: Tensor, tmp_path: Path
) -> None:
    torch.save(images, tmp_path / "images.pt")
    arguments = [sys.executable, "-c", SCORE, str(small), str(checkpoint), str(tmp_path / "images.pt")]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [scorer.version, *(score.hex() for score in scorer(images).tolist())]
