"""The one thread that derains, and the images that wait for it.

All bookkeeping is done by the event loop, which therefore needs no lock and is never held up. Images of one size that
wait already are derained together where that pays; nobody waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch

from rgsud_lib.inference import Derainer
from rgsud_lib.serving.metrics import Metrics


class _Abandoned(Exception):
    """Nobody waits any more for what is being computed."""


@dataclass(eq=False)
class _Job:
    image: np.ndarray
    future: asyncio.Future[np.ndarray]

    @property
    def kind(self) -> tuple[object, ...]:
        return (self.image.dtype, self.image.shape)


class Engine:
    """Derains one image, or one batch of like images, at a time; `batch` 0 is the derainer's own."""

    def __init__(self, derainer: Derainer, batch: int, metrics: Metrics) -> None:
        self._derainer, self._metrics = derainer, metrics
        self.batch = batch or derainer.batch
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "derain")
        self._pace = 0.0  # seconds an image takes, of late
        # So that a tile is the longest that is done for nobody:
        derainer.network.register_forward_pre_hook(self._stop_if_abandoned)

    async def derain(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Derain images as `Derainer.samples` takes them, H x W x C; the results are alike.

        Where the caller is cancelled, what is not begun is dropped and what runs ends with its tile.
        """
        loop = asyncio.get_running_loop()
        jobs = [_Job(image, loop.create_future()) for image in images]
        self._waiting.extend(jobs)
        self._metrics.waiting.set(len(self._waiting))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            return list(await asyncio.gather(*(job.future for job in jobs)))
        finally:
            for job in jobs:
                job.future.cancel()

    @property
    def patience(self) -> int:
        """Seconds until about half of what waits is done, 1 to 60."""
        return max(1, min(60, math.ceil(self._pace * len(self._waiting) / 2)))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._next():
            start = perf_counter()
            try:
                results = await loop.run_in_executor(self._thread, self._run, [job.image for job in self._running])
            except _Abandoned:
                pass
            except Exception as error:  # raised again where each of them is awaited; the next ones may be well
                for job in self._running:
                    if not job.future.done():
                        job.future.set_exception(error)
            else:
                seconds = perf_counter() - start
                self._pace += 0.2 * (seconds / len(results) - self._pace)
                self._metrics.derained(results, seconds)
                for job, result in zip(self._running, results, strict=True):
                    if not job.future.done():
                        job.future.set_result(result)
            self._running = []

    def _next(self) -> bool:
        """Take the oldest image that is still wanted, and its like where they fit into one tile, up to a batch."""
        self._waiting = deque(job for job in self._waiting if not job.future.done())
        if self._waiting:
            first = self._waiting[0]
            many = self.batch if max(first.image.shape[:2]) <= self._derainer.tile else 1
            self._running = [job for job in self._waiting if job.kind == first.kind][:many]
            for job in self._running:
                self._waiting.remove(job)
        self._metrics.waiting.set(len(self._waiting))
        return bool(self._running)

    @torch.inference_mode()
    def _run(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """In the thread: images of one kind."""
        if len(images) == 1:
            return [self._derainer.samples(images[0])]
        return list(self._derainer.samples(np.stack(images)))

    def _stop_if_abandoned(self, *_: object) -> None:
        if self._running and all(job.future.cancelled() for job in self._running):
            raise _Abandoned
