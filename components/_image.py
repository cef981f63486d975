"""The one image that all tasks run in.

KFP's cache key holds the image's *name*, not its content, so a name must mean one content: a reference is
pinned by digest (RGSUD_IMAGE=registry/rgsud@sha256:...). Images of this machine (localhost/...) are for development.
"""

from __future__ import annotations

import os
import re

from rgsud_lib.errors import ConfigError

DEVELOPMENT = "localhost/rgsud-python:development"


def image() -> str:
    """RGSUD_IMAGE, or the development image. Raises ConfigError: a reference that can change its content."""
    reference = os.environ.get("RGSUD_IMAGE") or DEVELOPMENT
    if reference.startswith("localhost/") or re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", reference):
        return reference
    raise ConfigError(
        f"RGSUD_IMAGE={reference!r} can change its content under the same name; pin it by digest "
        "(name@sha256:64 hex digits, as `docker buildx imagetools inspect` prints it)"
    )
