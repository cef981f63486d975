"""The derainers' names and their sizes, known without importing torch: a configuration is checked before anything is.

To add a derainer: its network in a file of `networks/`, a line in `networks/__init__.py`, an entry here.
"""

from __future__ import annotations

from typing import Any

# Arguments of each network: as published, for an hour on a CPU, and for the demo.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "nafnet": {  # CSUD's
        "published": {"width": 32, "encoder": (2, 2, 4, 8), "middle": 12, "decoder": (2, 2, 2, 2)},
        "tiny": {"width": 16, "encoder": (1, 1, 1), "middle": 2, "decoder": (1, 1, 1)},
        "mini": {"width": 12, "encoder": (1, 1), "middle": 1, "decoder": (1, 1)},
    },
    "prenet": {
        "published": {"width": 32, "passes": 6},
        "tiny": {"width": 16, "passes": 3},
        "mini": {"width": 8, "passes": 3},
    },
    "rescan": {
        "published": {"width": 24, "depth": 5, "stages": 4},
        "tiny": {"width": 16, "depth": 4, "stages": 2},
        "mini": {"width": 8, "depth": 3, "stages": 2},
    },
    "mprnet": {
        "published": {"width": 40, "step": 20, "extra": 16, "blocks": 8},
        "tiny": {"width": 16, "step": 8, "extra": 8, "blocks": 2},
        "mini": {"width": 8, "step": 4, "extra": 4, "blocks": 1},
    },
    "restormer": {
        "published": {"width": 48, "blocks": (4, 6, 6, 8), "refinement": 4},
        "tiny": {"width": 16, "blocks": (1, 1, 2), "refinement": 1},
        "mini": {"width": 8, "blocks": (1, 1), "refinement": 0},
    },
    "drsformer": {
        "published": {"width": 48, "blocks": (4, 6, 6, 8), "mixture": True},
        "tiny": {"width": 16, "blocks": (1, 1, 2), "mixture": False},
        "mini": {"width": 8, "blocks": (1, 1), "mixture": False},
    },
    "nerd_rain": {
        "published": {"width": 48, "blocks": (2, 3, 3)},
        "tiny": {"width": 8, "blocks": (1, 1, 1)},
        "mini": {"width": 4, "blocks": (1, 1)},
    },
}


LEAST = {"width": 4, "passes": 1, "depth": 2, "stages": 1}  # below it there is no network; others may be 0


def complete(name: str, size: str, given: dict[str, Any]) -> dict[str, Any]:
    """A network's arguments: those of the size, with the given ones in their place.

    Raises ValueError: an unknown name, size or argument (all are listed), a value of another type than the size's.
    """
    if name not in SIZES:
        raise ValueError(f"unknown derainer {name!r}; choose one of {', '.join(SIZES)}")
    if size not in SIZES[name]:
        raise ValueError(f"unknown size {size!r} of {name}; choose one of {', '.join(SIZES[name])}")
    arguments = SIZES[name][size]
    if unknown := sorted(given.keys() - arguments.keys()):
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(arguments)}")
    completed = arguments | {
        key: _checked(f"{name}'s {key}", value, arguments[key], LEAST.get(key, 0)) for key, value in given.items()
    }
    if completed["width"] % 2:
        raise ValueError(f"{name}'s width is {completed['width']}; expected an even number of channels")
    if len(completed.get("blocks", (1, 1)) if name != "mprnet" else (1, 1)) < 2:
        raise ValueError(f"{name}'s blocks {completed['blocks']} are of one scale; give those of two at least")
    if len(completed.get("encoder", ())) != len(completed.get("decoder", ())):
        levels = f"encoder has {len(completed['encoder'])} levels and decoder {len(completed['decoder'])}"
        raise ValueError(f"{levels}; give both the same number")
    return completed


def _checked(what: str, value: Any, like: Any, least: int) -> Any:
    """`value` in the form of `like`: a bool, a count of `least` or more, or a tuple of counts."""
    if isinstance(like, bool):
        valid = isinstance(value, bool)
    elif isinstance(like, int):
        valid = isinstance(value, int) and not isinstance(value, bool) and value >= least
    else:
        valid = isinstance(value, list | tuple) and value and all(type(item) is int and item >= 0 for item in value)
    if not valid:
        bound = f", {least} or more" if least else ""
        raise ValueError(f"{what} is {value!r}; expected something like {like!r}{bound}")
    return tuple(value) if isinstance(like, tuple) else value
