"""The grids: fixed images in rows, rainy, derained, reward and clean in columns."""

from __future__ import annotations

import numpy as np

from rgsud_lib.data.rain import draw_rain
from rgsud_lib.training.validation import GRID_PAIRS, GRID_SIDE, Validator


def test_a_grid_has_the_four_pictures_of_each_image_and_grey_for_what_there_is_not() -> None:
    scenes = [np.full((300, 280, 3), 60 + 20 * number, np.uint8) for number in range(3)]
    rainy = [("a", np.full((300, 280, 3), 40, np.uint8)), ("b", np.full((200, 200, 3), 50, np.uint8))]
    validator = Validator(scenes, rainy, seed=0, derain=lambda images: images * 0.5, draw=draw_rain)
    grid = validator.grid(lambda name: np.full((300, 280, 3), 99, np.uint8) if name == "a" else None)
    assert grid.shape == ((2 + GRID_PAIRS) * GRID_SIDE, 4 * GRID_SIDE, 3)
    centres = grid[GRID_SIDE // 2 :: GRID_SIDE, GRID_SIDE // 2 :: GRID_SIDE, 0]
    assert centres[0].tolist() == [40, 20, 99, 128]
    assert centres[1].tolist() == [50, 25, 128, 128]
    assert centres[2:, 2].tolist() == [128] * GRID_PAIRS
    assert centres[2:, 3].tolist() == [60, 80]
