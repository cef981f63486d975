"""From a preset and settings, or from a JSON document, to a checked configuration."""

from __future__ import annotations

import difflib
import json
from typing import Any

from pydantic import ValidationError

from rgsud_lib.config.tree import Config
from rgsud_lib.derainer_sizes import SIZES
from rgsud_lib.errors import ConfigError
from rgsud_lib.presets import PRESETS


def load_config(preset: str = "demo", overrides: list[str] | None = None) -> Config:
    """A preset with `section.field=value` overrides applied, validated.

    Raises ConfigError: unknown preset or field (the nearest names are given), bad value.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    tree: dict[str, Any] = {"preset": preset, **PRESETS[preset]()}
    for override in overrides or []:
        _apply(tree, override)
    return parse_config(tree)


def parse_config(document: dict[str, Any] | str) -> Config:
    """A Config from its JSON document. Raises ConfigError with path, value and rule of each mistake."""
    try:
        return Config.model_validate(json.loads(document) if isinstance(document, str) else document)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"the configuration is no JSON document ({error}); `rgsud pipeline submit` writes one that is"
        ) from None
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item) for item in error.errors())) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    known = [*Config().flat(), *(f"derainer.{key}" for sizes in SIZES.values() for key in sizes["published"])]
    if not separator:
        raise ConfigError(f"--set {override!r}: expected section.field=value, for example training.steps=1000")
    if path not in known:
        raise ConfigError(f"--set {override!r}: unknown setting {path!r}; {_nearest(path, known)}")
    *sections, field = path.split(".")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[field] = value


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"


def _explain(item: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown setting {path!r}; {_nearest(path, list(Config().flat()))}"
    rule = item["msg"].removeprefix("Value error, ")
    # A rule between several fields names them itself; the whole section would bury it.
    return rule if isinstance(item["input"], dict) else f"{path}={item['input']!r}: {rule}"
