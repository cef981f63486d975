"""What the service accepts and how long it takes over it. Changes no model, so it is no part of `Config`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import Field, ValidationError, model_validator

from rgsud_lib.config.section import Section
from rgsud_lib.errors import ConfigError

PREFIX = "RGSUD_SERVE_"


class ServingConfig(Section):
    """Limits of `rgsud serve`; each is also an environment variable, such as RGSUD_SERVE_MAX_PIXELS."""

    name: str = Field("rgsud", pattern=r"^[A-Za-z0-9._-]+$", description="of the model in /v2/models/NAME")
    version: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]*$", description="of the model, as shown; default: its weights' digest, 12 digits"
    )
    weights_digest: str = Field(
        "", description="refuse to start with other weights (of ONNX: another file); default: any"
    )
    max_bytes: int = Field(2**26, ge=1024, description="bytes of a request's body")
    max_json_bytes: int = Field(2**23, ge=1024, description="bytes of JSON in a request, and of tensors in an answer's")
    max_pixels: int = Field(25_000_000, ge=1, description="pixels of a request, all its images together")
    max_images: int = Field(64, ge=1, description="images of a request")
    tile: int = Field(512, ge=64, description="larger images are derained in tiles of this side")
    overlap: int = Field(32, ge=0, description="pixels over which neighbouring tiles are blended")
    mirror: bool = Field(False, description="derain as the mean over an image and its mirror image: twice the time")
    batch: int = Field(
        0, ge=0, description="images of one size derained at once, if so many wait; 0: up to 8 on a GPU, 1 on a CPU"
    )
    queue: int = Field(16, ge=1, description="requests under way; further ones are told to come again (503)")
    receive_seconds: float = Field(30, gt=0, description="that a request's body may take to arrive")
    timeout_seconds: float = Field(120, gt=0, description="that a request may take from then on")
    notice_seconds: float = Field(5, ge=0, description="requests are still taken after SIGTERM, while not ready")
    drain_seconds: float = Field(60, gt=0, description="that requests under way then have to finish")

    @model_validator(mode="after")
    def overlap_fits(self) -> ServingConfig:
        if 2 * self.overlap >= self.tile:
            raise ValueError(f"overlap={self.overlap} is too large for tile={self.tile}; use less than half of it")
        return self


def serving_config(overrides: list[str] | None = None, environment: Mapping[str, str] = os.environ) -> ServingConfig:
    """Settings from RGSUD_SERVE_* and, over them, `field=value`. Raises ConfigError: unknown field, bad value."""
    values: dict[str, str] = {}
    for field in ServingConfig.model_fields:
        if given := environment.get(PREFIX + field.upper()):
            values[field] = given
    for override in overrides or []:
        field, separator, value = override.partition("=")
        if not separator or field not in ServingConfig.model_fields:
            known = ", ".join(ServingConfig.model_fields)
            raise ConfigError(f"--set {override!r}: expected FIELD=VALUE with one of {known}")
        values[field] = value
    try:
        return ServingConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item) for item in error.errors())) from None


def _explain(item: dict[str, object]) -> str:
    rule = str(item["msg"]).removeprefix("Value error, ")
    path = ".".join(map(str, item["loc"]))  # type: ignore[call-overload]
    return f"{path}={item['input']!r}: {rule}; change --set {path} or {PREFIX}{path.upper()}" if path else rule
