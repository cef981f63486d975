"""The names of scorers and of weighted sums of them, known without importing any network.

`rain_layer` is one scorer, `critic+2*decorrelation` an ensemble, `pyiqa:musiq` one of pyiqa's metrics.
"""

from __future__ import annotations

import difflib
import math

from rgsud_lib.errors import ConfigError

KNOWN = ("clip_iqa", "critic", "daclip", "decorrelation", "niqe", "piqe", "rain_layer")
DOWNLOADED = ("clip_iqa", "daclip")  # besides pyiqa's: need weights that do not come with the project
MAPPED = ("critic", "rain_layer")  # say where an output is better, not only whether
PYIQA = "pyiqa:"
OURS = "this project's code, no foreign weights"
LICENCES = {
    "clip_iqa": "this project's code; OpenAI's CLIP weights, MIT",
    "daclip": "this project's code; the checkpoint's licence is stated where it is published",
    PYIQA: "pyiqa, PolyForm Noncommercial 1.0.0; many of its metrics and weights have licences of their own",
}
TWINS = {"pyiqa:niqe": "niqe", "pyiqa:piqe": "piqe", "pyiqa:clipiqa": "clip_iqa"}


def parse_scorer(text: str) -> dict[str, float]:
    """`"a+2*b"` to `{"a": 1.0, "b": 2.0}`. Raises ConfigError: unknown or repeated name, weight not above 0."""
    weights: dict[str, float] = {}
    for term in text.split("+"):
        factor, star, name = term.strip().rpartition("*")
        weight = _weight(factor, text) if star else 1.0
        name = name.strip()
        if name not in KNOWN and not (name.startswith(PYIQA) and len(name) > len(PYIQA)):
            near = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"unknown scorer {name!r}; {hint}known: {', '.join(KNOWN)}, {PYIQA}METRIC, and sums such as "
                "critic+2*decorrelation"
            )
        if name in weights:
            raise ConfigError(f"scorer {text!r} names {name!r} twice; give it one weight, for example 2*{name}")
        weights[name] = weight
    if len(weights) == 1 and weights != {text: 1.0}:
        raise ConfigError(f"scorer {text!r} is a single one and needs no weight; write {next(iter(weights))}")
    return weights


def shared(first: str, second: str) -> list[str]:
    """The scorers that are in both, pyiqa's versions of ours counted as ours."""
    names = [{TWINS.get(name, name) for name in parse_scorer(text)} for text in (first, second)]
    return sorted(names[0] & names[1])


def licences(*scorers: str) -> dict[str, str]:
    """The licence of each member of these scorers, code and weights, by its name."""
    members = dict.fromkeys(member for text in scorers for member in parse_scorer(text))
    return {name: LICENCES.get(PYIQA if name.startswith(PYIQA) else name, OURS) for name in members}


def _weight(text: str, scorer: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ConfigError(f"scorer {scorer!r}: weight {text.strip()!r} is not a number above 0; write 2*niqe+critic")
    return weight
