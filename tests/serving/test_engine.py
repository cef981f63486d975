"""Batches of like images that wait, and no wait for them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from rgsud_lib.inference import Derainer
from rgsud_lib.serving.engine import Engine
from rgsud_lib.serving.metrics import Metrics


def grey(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def run(model, batch: int, images: list[np.ndarray]) -> list[np.ndarray]:
    """Ask for each image by itself while the first holds the thread up."""

    async def ask() -> list[np.ndarray]:
        engine = Engine(Derainer(model, "cpu", tile=64, overlap=0), batch, Metrics())
        model.shapes.clear()
        model.go.clear()
        asked = []
        for image in images:
            asked.append(asyncio.create_task(engine.derain([image])))
            while not model.shapes:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)
        model.go.set()
        results = [(await task)[0] for task in asked]
        engine.close()
        return results

    return asyncio.run(ask())


def test_like_images_that_wait_are_derained_together_and_each_gets_its_own(model) -> None:
    images = [grey(8, 9, 90), grey(8, 9, 100), grey(8, 8, 110), grey(8, 9, 120), grey(8, 9, 130), grey(8, 9, 140)]
    results = run(model, 3, images)
    assert model.shapes == [(1, 3, 8, 9), (3, 3, 8, 9), (1, 3, 8, 8), (1, 3, 8, 9)]
    assert all(np.array_equal(result, image - 26) or np.array_equal(result, image - 25)
               for result, image in zip(results, images, strict=True))  # fmt: skip


def test_one_at_a_time_on_a_cpu_unless_asked(model) -> None:
    run(model, 0, [grey(8, 9)] * 3)
    assert model.shapes == [(1, 3, 8, 9)] * 3


def test_images_of_several_tiles_are_not_batched(model) -> None:
    run(model, 4, [grey(64, 128)] * 3)
    assert model.shapes == [(1, 3, 64, 64)] * 6


@pytest.mark.parametrize("batch", [1, 2])
def test_floating_point_keeps_its_precision(model, batch: int) -> None:
    images = [np.full((5, 6, 3), value, np.float32) for value in (0.5, 0.300123, 0.05)]
    results = run(model, batch, images)
    assert [result.dtype for result in results] == [np.float32] * 3
    assert np.allclose([result[0, 0, 0] for result in results], [0.4, 0.200123, 0.0], atol=1e-6)
