from __future__ import annotations

import pytest

from rgsud_components._image import DEVELOPMENT, image
from rgsud_lib.errors import ConfigError

PINNED = "registry.example/team/rgsud@sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(("given", "expected"), [(None, DEVELOPMENT), ("", DEVELOPMENT), (PINNED, PINNED)])
def test_a_pinned_reference_or_the_development_image(monkeypatch, given, expected) -> None:
    monkeypatch.delenv("RGSUD_IMAGE", raising=False)
    if given is not None:
        monkeypatch.setenv("RGSUD_IMAGE", given)
    assert image() == expected


@pytest.mark.parametrize(
    "given", ["registry.example/rgsud:latest", "rgsud", "rgsud:1.2", "rgsud@sha256:0123", f"{PINNED} x"]
)
def test_a_name_that_can_change_its_content_is_refused(monkeypatch, given) -> None:
    monkeypatch.setenv("RGSUD_IMAGE", given)
    with pytest.raises(ConfigError, match="pin it by digest"):
        image()
