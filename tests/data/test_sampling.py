"""Crops are a pure function of (seed, step), and a reward's crop matches its rainy image's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rgsud_lib.data.sampling import Crop, Stream, cut, draw_crops, stream


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_crops_depend_on_seed_and_step_only():
    first = draw_crops(["a", "b"], 8, stream(7, 100, Stream.RAINY))
    assert first == draw_crops(["a", "b"], 8, stream(7, 100, Stream.RAINY))
    assert first != draw_crops(["a", "b"], 8, stream(7, 101, Stream.RAINY))
    assert first != draw_crops(["a", "b"], 8, stream(8, 100, Stream.RAINY))
    assert first != draw_crops(["a", "b"], 8, stream(7, 100, Stream.CLEAN))


def test_the_same_crop_cuts_the_same_place_from_image_and_reward():
    crops = draw_crops(["a"], 16, stream(0, 0, Stream.RAINY))
    image, reward = coordinates(90, 120), coordinates(90, 120) + 1
    assert torch.allclose(
        cut(crops, 32, lambda _: reward)[:, :2] - cut(crops, 32, lambda _: image)[:, :2],
        torch.tensor(1 / 255),
        atol=1e-6,
    )


def test_flip_mirrors_left_and_right():
    plain, mirrored = (cut([Crop("a", 0.5, 0.5, flip)], 32, lambda _: coordinates(64, 64)) for flip in (False, True))
    assert torch.equal(plain.flip(-1), mirrored)


def test_every_position_can_be_drawn():
    crops = draw_crops(["a"], 500, stream(0, 1, Stream.RAINY))
    tops = {int(value * 255 + 0.5) for value in cut(crops, 60, lambda _: coordinates(64, 64))[:, 0, 0, 0].tolist()}
    assert tops == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("size", [(20, 100), (100, 20), (20, 20)])
def test_small_images_are_mirrored_outwards(size):
    assert cut([Crop("a", 0.9, 0.9, False)], 32, lambda _: coordinates(*size)).shape == (1, 3, 32, 32)
