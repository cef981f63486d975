from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from rgsud_lib.data.images import to_tensor
from rgsud_lib.errors import DataError
from rgsud_lib.rewards.niqe import Niqe, luma, patch_features


def textured(seed: int, side: int = 200) -> np.ndarray:
    """Smooth random texture: low-pass noise, uint8 RGB."""
    coarse = torch.rand(1, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (smooth[0].permute(1, 2, 0) * 255).byte().numpy()


@pytest.fixture(scope="module")
def fitted() -> Niqe:
    return Niqe.fit([textured(seed) for seed in range(12)])


def load(path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


@pytest.fixture()
def published(shared_data) -> Niqe:
    file = np.load(shared_data / "iqa" / "niqe_pris_params.npz")
    return Niqe.from_parameters(file["mu_pris_param"], file["cov_pris_param"])


# Scores that pyiqa 0.1.16's niqe gives with the published parameters (it halves in float32, hence the tolerance).
PYIQA = {
    ("rain", "003.png"): 2.717970,
    ("rain", "004.png"): 2.589834,
    ("rain", "005.png"): 8.057218,
    ("rain", "006.png"): 3.985807,
    ("clean", "003.png"): 2.712933,
    ("clean", "005.png"): 3.775777,
    ("clean", "006.png"): 2.166805,
}


@pytest.mark.parametrize(("kind", "name"), PYIQA)
def test_agrees_with_an_independent_implementation(kind, name, shared_data, published: Niqe) -> None:
    image = to_tensor(load(shared_data / "rain100L" / kind / name))
    assert published.distance(luma(image[0])) == pytest.approx(PYIQA[kind, name], abs=0.003)
    assert -published(image).item() == pytest.approx(PYIQA[kind, name], abs=0.003)


def test_published_model_prefers_clean_photographs(shared_data, published: Niqe) -> None:
    names = sorted(path.name for path in (shared_data / "rain100L" / "rain").glob("*.png"))[:20]
    rainy = [published(to_tensor(load(shared_data / "rain100L" / "rain" / name))).item() for name in names]
    clean = [published(to_tensor(load(shared_data / "rain100L" / "clean" / name))).item() for name in names]
    assert 2.5 < -np.mean(clean) < 4
    assert np.mean(clean) > np.mean(rainy) + 0.5


def test_half_scale_is_matlabs() -> None:
    """Reference values: imresize([0:5]' * ones(1, 6), 0.5) rises by two a step, with mirrored borders at both ends."""
    from rgsud_lib.rewards.niqe import _halve

    ramp = torch.arange(12, dtype=torch.float64)[:, None].expand(12, 12).contiguous()
    halved = _halve(ramp)[:, 0]
    assert halved[2:4].tolist() == pytest.approx([4.5, 6.5])
    assert halved[0] + halved[5] == pytest.approx(11.0)
    assert _halve(torch.full((8, 10), 7.0, dtype=torch.float64)).tolist() == [[pytest.approx(7.0)] * 5] * 4


def test_score_is_deterministic_and_batched(fitted: Niqe) -> None:
    images = to_tensor(np.stack([textured(20), textured(21)]))
    scores = fitted(images, images)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, fitted(images, images))
    assert scores[1].item() == fitted(images[1:]).item()


def test_noise_and_flatness_are_worse_than_the_pristine_kind(fitted: Niqe) -> None:
    natural = to_tensor(textured(30))
    noise = (natural + 0.2 * torch.randn(natural.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert fitted(natural) > fitted(noise)
    for value in (0.0, 0.5, 1.0):
        score = fitted(torch.full((1, 3, 100, 130), value)).item()
        assert math.isfinite(score)
        assert score < fitted(noise).item()


def test_flat_patches_are_left_out(fitted: Niqe) -> None:
    image = to_tensor(textured(31, side=192))
    clipped = image.clone()
    clipped[..., :96, :96] = 1.0
    features, _ = patch_features(luma(clipped[0]))
    assert features.isnan().any(1).tolist() == [True, False, False, False]
    assert math.isfinite(fitted(clipped).item())


def test_fit_is_bounded_deterministic_and_names_its_version(fitted: Niqe) -> None:
    again = Niqe.fit([textured(seed) for seed in range(12)])
    assert again.version == fitted.version
    assert Niqe.fit([textured(seed) for seed in range(1, 12)]).version != fitted.version
    asked: list[int] = []

    class Many:
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> np.ndarray:
            asked.append(index)
            return textured(index % 3, side=96)

    Niqe.fit(Many())
    assert len(asked) == 100
    assert (asked[0], asked[-1]) == (0, 999)


def test_few_patches_still_give_a_usable_covariance() -> None:
    few = Niqe.fit([textured(0), textured(1), textured(2)])
    assert torch.linalg.eigvalsh(few.covariance).min() > 0


def test_small_images_are_refused_and_passed_over_in_the_fit(fitted: Niqe) -> None:
    with pytest.raises(DataError, match="at least 96 x 96 pixels, got 95 x 200"):
        fitted(torch.rand(1, 3, 95, 200))
    with pytest.raises(DataError, match="0 usable patches from 2 clean images"):
        Niqe.fit([textured(0, side=80), textured(1, side=88)])
    with pytest.raises(DataError, match="0 clean images"):
        Niqe.fit([])
