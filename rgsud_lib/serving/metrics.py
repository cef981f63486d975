"""What /metrics tells Prometheus: the four golden signals of the service, and what the derainer does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
GONE = 499  # nginx's status for a client that went away; nobody receives it


class Metrics:
    """The metrics of one service; `registry` is what is exposed."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "rgsud_requests", "Requests answered, by route and status", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "rgsud_request_seconds", "From a request's first byte to its answer's", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.under_way = Gauge("rgsud_requests_under_way", "Requests that hold a place of the queue", registry=registry)
        self.waiting = Gauge("rgsud_images_waiting", "Images that wait for the derainer", registry=registry)
        self.images = Counter("rgsud_images", "Images derained", registry=registry)
        self.pixels = Counter("rgsud_pixels", "Pixels derained", registry=registry)
        self.batch = Histogram(
            "rgsud_batch_images", "Images derained at once", buckets=(1, 2, 4, 8, 16), registry=registry
        )
        self.busy = Histogram(
            "rgsud_derain_seconds", "Deraining one image or batch", buckets=SECONDS, registry=registry
        )
        self.model = Info("rgsud_model", "The model that is served", registry=registry)
        self.ready = Gauge("rgsud_ready", "1 while new requests are welcome", registry=registry)

    def derained(self, images: Sequence[np.ndarray], seconds: float) -> None:
        """Count images that were derained at once, in that time."""
        self.images.inc(len(images))
        self.pixels.inc(sum(image.shape[0] * image.shape[1] for image in images))
        self.batch.observe(len(images))
        self.busy.observe(seconds)
