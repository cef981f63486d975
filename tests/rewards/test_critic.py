"""The critic: same images and settings, same bits; a file that was altered is refused; less rain is better."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rgsud_lib.config import CriticConfig
from rgsud_lib.data.degradations import DEGRADATIONS
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.rain import draw_rain
from rgsud_lib.errors import BundleError, DataError
from rgsud_lib.rewards.critic import METADATA, Critic, _psnr
from rgsud_lib.rewards.faults import imperfect

TINY = CriticConfig(steps=10, crop=32, width=4)
BRIEF = CriticConfig(steps=60, crop=64, width=4, learning_rate=2e-3)


def scenes(first: int, count: int) -> list[np.ndarray]:
    """Smooth random scenes with straight edges, uint8 72 x 80 x 3."""
    images = []
    for seed in range(first, first + count):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 5, 5, generator=generator)
        image = torch.nn.functional.interpolate(coarse, size=(72, 80), mode="bicubic").clamp(0, 1) * 0.6
        image[:, :, :, int(torch.randint(20, 60, (), generator=generator)) :] += 0.2
        images.append((image[0].permute(1, 2, 0) * 255).byte().numpy())
    return images


@pytest.fixture(scope="module")
def critic() -> Critic:
    return Critic.train(scenes(0, 12), BRIEF)


@pytest.fixture(scope="module")
def held_back() -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and rainy scenes that no critic was trained on."""
    clean = to_tensor(np.stack(scenes(100, 8)))
    return clean, draw_rain(clean, 5)


@pytest.fixture(params=[False, True], ids=["plain", "reloaded"])
def scorer(request, critic, tmp_path) -> Critic:
    if not request.param:
        return critic
    critic.save(tmp_path / "critic.safetensors")
    return Critic.load(tmp_path / "critic.safetensors")


def test_training_is_a_function_of_images_and_settings(tmp_path):
    images = scenes(0, 3)
    torch.manual_seed(1)
    first = Critic.train(images, TINY)
    torch.manual_seed(2)
    second = Critic.train(images, TINY)
    first.save(tmp_path / "first")
    second.save(tmp_path / "second")
    assert first.version == second.version
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert Critic.train(images, TINY.model_copy(update={"seed": 1})).version != first.version
    assert Critic.train(scenes(3, 3), TINY).version != first.version


def test_training_leaves_random_state_and_threads_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    Critic.train(scenes(0, 2), TINY)
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads


def test_a_critic_without_weights_has_no_preference(held_back):
    clean, rainy = held_back
    scores = Critic(torch.zeros(3), TINY)(torch.cat([clean, rainy]), torch.cat([rainy, rainy]))
    assert torch.equal(scores, torch.zeros(16))


def test_less_rain_is_better_than_more(scorer, held_back):
    clean, rainy = held_back
    perfect, half, nothing = (scorer(clean + share * (rainy - clean), rainy) for share in (0, 0.5, 1))
    assert (perfect > half).all()
    assert (half > nothing).float().mean() >= 0.85


def test_holes_and_tints_are_worse_than_the_scene(scorer, held_back):
    clean, rainy = held_back
    perfect = scorer(clean, rainy)
    holes = scorer((clean - 0.6 * (rainy - clean)).clamp(0, 1), rainy)
    tinted = scorer((clean + torch.tensor([0.04, 0, -0.04]).view(3, 1, 1)).clamp(0, 1), rainy)
    assert (perfect > holes).all()
    assert (perfect > tinted).all()


def test_the_map_finds_the_rain_and_the_holes(critic, held_back):
    clean, rainy = held_back
    for wrong in (rainy, (clean - 0.6 * (rainy - clean)).clamp(0, 1)):
        output = torch.cat([wrong[..., :40], clean[..., 40:]], dim=-1)
        gain = critic.score_map(output, rainy) - critic.score_map(clean, rainy)
        assert gain.shape == (8, 1, 72, 80)
        assert gain[..., :20].mean() < -0.1
        assert gain[..., 62:].abs().max() < 1e-6


def test_a_batch_scores_as_its_images_one_by_one(critic, held_back):
    clean, rainy = (images[..., :71, :77] for images in held_back)
    alone = [critic(clean[i : i + 1], rainy[i : i + 1]) for i in range(len(clean))]
    assert torch.equal(critic(clean, rainy), torch.cat(alone))


def test_a_saved_critic_is_the_same_critic(critic, held_back, tmp_path):
    critic.save(tmp_path / "critic.safetensors")
    loaded = Critic.load(tmp_path / "critic.safetensors")
    assert loaded.version == critic.version
    assert torch.equal(loaded(*held_back), critic(*held_back))
    with safe_open(tmp_path / "critic.safetensors", framework="pt") as opened:
        assert list(opened.metadata()) == [METADATA]


@pytest.mark.parametrize("part", ["weights", "settings", "bytes", "kind"])
def test_an_altered_file_is_refused(critic, tmp_path, part):
    path = tmp_path / "critic.safetensors"
    critic.save(path)
    _alter(path, part)
    with pytest.raises(BundleError, match="critic.safetensors .* train it again"):
        Critic.load(path)


def _alter(path: Path, part: str) -> None:
    weights = load_file(path)
    with safe_open(path, framework="pt") as opened:
        metadata = json.loads(opened.metadata()[METADATA])
    if part == "bytes":
        path.write_bytes(path.read_bytes()[:-100])
        return
    if part == "weights":
        weights["weights"][0] += 1e-3
    if part == "settings":
        metadata["config"]["seed"] = 7
    save_file(weights, path, {"other" if part == "kind" else METADATA: json.dumps(metadata)})


def test_made_up_outputs_are_images_and_cover_good_and_bad():
    clean = to_tensor(np.stack(scenes(0, 4)))[..., :64, :64]
    rainy = draw_rain(clean, 1)
    rain = DEGRADATIONS["rain"]
    outputs = [imperfect(clean, rainy, [torch.nn.Identity()], np.random.default_rng(seed), rain) for seed in range(30)]
    psnr = torch.cat([_psnr(output, clean) for output in outputs])
    assert all(output.shape == clean.shape and output.min() >= 0 and output.max() <= 1 for output in outputs)
    assert psnr.max() > 38
    assert psnr.min() < 25


def test_no_images_and_images_out_of_range_are_refused(critic, held_back):
    with pytest.raises(DataError, match="no clean images"):
        Critic.train([], TINY)
    with pytest.raises(ValueError, match=r"spans .* clamp or divide by 255"):
        critic(held_back[0] * 255, held_back[1])
