from __future__ import annotations

import io
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image
from torch import Tensor, nn

from rgsud_lib.config import serving_config
from rgsud_lib.inference import Derainer
from rgsud_lib.serving.app import create_app
from rgsud_lib.serving.service import Service


class Darken(nn.Module):
    """Takes a tenth of full scale away; holds still while `go` is not set; remembers the shapes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.1))
        self.go = threading.Event()
        self.go.set()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        assert self.go.wait(20)
        if images.amin() > 0.99:
            raise RuntimeError("too bright: a secret path /etc/x")
        return images - self.weight


@pytest.fixture
def model() -> Darken:
    return Darken()


@pytest.fixture
def make_app(model: Darken) -> Callable[..., tuple[FastAPI, Service]]:
    def make(*settings: str) -> tuple[FastAPI, Service]:
        given = serving_config(list(settings), {})
        derainer = Derainer(model, "cpu", given.tile, given.overlap)
        model.shapes.clear()
        service = Service(derainer, "0123456789abcdef", given)
        return create_app(service), service

    return make


def picture(width: int = 20, height: int = 10, form: str = "PNG", value: int = 128, **options: object) -> bytes:
    """A file of one grey, its top left pixel black."""
    image = np.full((height, width, 3), value, np.uint8)
    image[0, 0] = 0
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()
