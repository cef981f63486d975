from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from rgsud_lib.data.images import to_tensor
from rgsud_lib.rewards.niqe import luma
from rgsud_lib.rewards.piqe import Piqe, distortion, has_noticeable_distortion, is_noisy


def grey_scene(period: int, grain: float, height: int = 96, width: int = 128) -> torch.Tensor:
    """Waves with grain, equal in all channels, the brightest pixel 1: what pyiqa's rescaling leaves alone."""
    y, x = np.mgrid[:height, :width]
    waves = 0.5 + 0.4 * np.sin(y / period + x / (period - 9)) * np.cos(x * y / 700)
    image = waves + grain * np.random.default_rng(0).integers(-64, 65, (height, width)) / 64
    image = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    image[0, 0] = 255
    return to_tensor(np.repeat(image[..., None], 3, axis=2))


# (period, grain): what pyiqa 0.1.16's piqe gives in float64 for sides that are multiples of 16.
PYIQA = {
    (13, 0.0): 91.66327,
    (23, 0.0): 100.0,
    (23, 0.02): 30.35398,
    (23, 0.05): 8.81683,
    (40, 0.1): 59.70032,
    (40, 0.3): 77.66115,
}


@pytest.mark.parametrize(("period", "grain"), PYIQA)
def test_agrees_with_an_independent_implementation(period: int, grain: float) -> None:
    assert -Piqe()(grey_scene(period, grain)).item() == pytest.approx(PYIQA[period, grain], abs=0.001)


# The same on photographs: their luma, cropped to multiples of 16, the corner white.
PHOTOGRAPHS = {
    ("rain", "003.png"): 32.55546,
    ("rain", "005.png"): 28.95336,
    ("rain", "006.png"): 18.86905,
    ("clean", "003.png"): 34.36656,
    ("clean", "005.png"): 17.51824,
    ("clean", "006.png"): 16.41608,
}


@pytest.mark.parametrize(("kind", "name"), PHOTOGRAPHS)
def test_agrees_on_photographs(kind: str, name: str, shared_data) -> None:
    image = to_tensor(np.array(Image.open(shared_data / "rain100L" / kind / name).convert("RGB")))
    plane = luma(image[0])[: image.shape[2] // 16 * 16, : image.shape[3] // 16 * 16].contiguous()
    plane[0, 0] = 255
    assert distortion(plane) == pytest.approx(PHOTOGRAPHS[kind, name], abs=0.001)


def test_a_flat_image_is_the_worst_and_noise_is_bad() -> None:
    scores = Piqe()(torch.cat([torch.full((1, 3, 96, 128), 0.5), grey_scene(40, 0.3), grey_scene(40, 0.02)]))
    assert scores[0].item() == -100
    assert scores[0] < scores[1] < scores[2] - 30


def test_criteria_on_single_blocks() -> None:
    noise = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    impaired = noise.clone()
    impaired[1, 10:, 15] = 0.3  # six pixels of the right edge
    assert has_noticeable_distortion(impaired).tolist() == [False, True]
    impaired[1, 10, 15] = -0.3
    assert has_noticeable_distortion(impaired).tolist() == [False, False]
    striped = noise.clone()
    striped[1, :, 7:9] = 0  # a centre unlike its surround
    assert is_noisy(striped, striped.var((1, 2))).tolist() == [True, False]
    assert not is_noisy(torch.zeros(1, 16, 16), torch.zeros(1)).any()


def test_sides_are_continued_to_whole_blocks() -> None:
    plane = luma(grey_scene(23, 0.05, 90, 117)[0])
    continued = torch.from_numpy(np.pad(plane.numpy(), ((0, 6), (0, 11)), mode="edge"))
    assert distortion(plane) == distortion(continued)
    assert np.isfinite(distortion(plane[:5, :3]))


def test_batch_of_one_equals_batch_of_many() -> None:
    images = torch.cat([grey_scene(13, 0.0), grey_scene(23, 0.05), grey_scene(40, 0.1)])
    scores = Piqe()(images, images)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [Piqe()(image[None]).item() for image in images]
    with pytest.raises(ValueError, match="expected finite values"):
        Piqe()(images * 255)


def test_two_processes_give_the_same_bits_and_version() -> None:
    image = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    code = (
        "import torch; from rgsud_lib.rewards.piqe import Piqe; scorer = Piqe()\n"
        "image = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))\n"
        "print(scorer(image).item().hex(), scorer.version)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert other == [Piqe()(image).item().hex(), Piqe().version]
