"""What the handlers share: the engine, a small pool for decoding and encoding, the places of the queue, readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from starlette.requests import ClientDisconnect, Request

from rgsud_lib.config import ServingConfig
from rgsud_lib.errors import BundleError
from rgsud_lib.inference import Derainer
from rgsud_lib.serving.engine import Engine
from rgsud_lib.serving.metrics import Metrics
from rgsud_lib.serving.refusal import Refusal
from rgsud_lib.serving.scores import Scores

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 2  # decode and encode: two, so that a large file does not hold up a small one
DIGITS = 12  # of the weights' digest, as a version


class Service:
    """A derainer, whose weights have that digest, at work. `ready`: whether new requests are welcome."""

    def __init__(self, derainer: Derainer, digest: str, settings: ServingConfig, scores: Scores | None = None) -> None:
        if settings.weights_digest not in ("", digest):
            expected = settings.weights_digest
            raise BundleError(f"the model's weights have the digest {digest}, expected weights_digest={expected}")
        self.settings, self.version = settings, settings.version or digest[:DIGITS]
        self.metrics = Metrics()
        self.metrics.model.info({"name": settings.name, "version": self.version, "weights_digest": digest})
        self.engine = Engine(derainer, settings.batch, self.metrics)
        self.scores = scores or Scores()
        self._pool = ThreadPoolExecutor(THREADS, "picture")
        self._taken = 0
        self.ready = True

    @property
    def ready(self) -> bool:
        return self._ready

    @ready.setter
    def ready(self, value: bool) -> None:
        self._ready = value
        self.metrics.ready.set(value)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.engine.close()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, from before the body is read. Raises Refusal (503) where all are taken."""
        if self._taken >= self.settings.queue:
            raise Refusal(503, f"all {self.settings.queue} places (queue) are taken; come again", self.engine.patience)
        self._taken += 1
        self.metrics.under_way.set(self._taken)
        try:
            yield
        finally:
            self._taken -= 1
            self.metrics.under_way.set(self._taken)

    async def compute(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*arguments, **named))

    async def within_time(self, request: Request, work: Coroutine[None, None, T]) -> T:
        """The result of `work`, which is cancelled where it takes too long (Refusal 504) or the client goes away."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
        seconds = self.settings.timeout_seconds
        try:
            await asyncio.wait((task, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientDisconnect
            raise Refusal(504, f"not done within {seconds:g} s (timeout_seconds); send smaller images, or come again")
        finally:
            for left in (task, gone):
                left.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)
