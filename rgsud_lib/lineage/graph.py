"""The lineage of a model or a dataset, both ways: what it was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from rgsud_lib.lineage import RAW, Name, Place, inputs_first, inputs_of, name_of
from rgsud_lib.lineage.about import about, about_version, origin
from rgsud_lib.lineage.asked import find, own_workdir
from rgsud_lib.lineage.memory import Version
from rgsud_lib.lineage.shelf import Shelf

TITLES = {
    RAW: "raw images",
    "dataset": "dataset",
    "recycled": "stage 1",
    "reinforced": "stage 2",
    "evaluation": "evaluation",
    "export": "exported model",
    "file": "model file",
    "version": "version",
}

STATES = {"found": "", "gone": " (gone)", "unknown": " (not found)"}
RUNS = "rgsud-runs"  # the workdir where none is named


@dataclass(frozen=True)
class Node:
    """One thing of a lineage: raw images, a stage's bundle, or a version of the registry.

    `name` is its kind with its digest or its version's number, `state` "gone" where MLflow knows it but its folder is
    not there, "unknown" where nothing but its digest is known; `about` says in words what it holds.
    """

    name: Name
    state: Literal["found", "gone", "unknown"]
    place: str
    inputs: tuple[Name, ...]
    about: tuple[str, ...]

    @property
    def title(self) -> str:
        kind, digest = self.name
        return f"{TITLES.get(kind, kind)} {digest}"

    @property
    def lines(self) -> list[str]:
        """All of it in words, its title first."""
        return [f"{self.title}{STATES[self.state]}", *self.about, *([self.place] if self.place else [])]


@dataclass(frozen=True)
class Lineage:
    """`roots` are what was asked for, `sources` all that they were made from, nearest first, `results` the reverse."""

    asked: str
    roots: tuple[Name, ...]
    sources: tuple[Name, ...]
    results: tuple[Name, ...]
    nodes: dict[Name, Node]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON: a name is [kind, digest]."""
        return asdict(self) | {"nodes": [asdict(node) for node in self.nodes.values()]}

    def steps(self, name: Name) -> list[Name]:
        """The inputs of a thing that are not behind another of its inputs too: what to draw."""
        return self._steps[name]

    def uses(self, name: Name) -> list[Name]:
        """What has a thing among its `steps`."""
        return self._uses[name]

    @cached_property
    def _steps(self) -> dict[Name, list[Name]]:
        inputs = {name: [near for near in node.inputs if near in self.nodes] for name, node in self.nodes.items()}
        behind = {name: set(inputs_first(name, inputs.__getitem__)[:-1]) for name in inputs}
        return {
            name: [near for near in nears if not any(near in behind[other] for other in nears)]
            for name, nears in inputs.items()
        }

    @cached_property
    def _uses(self) -> dict[Name, list[Name]]:
        uses: dict[Name, list[Name]] = {name: [] for name in self.nodes}
        for name, nears in self._steps.items():
            for near in nears:
                uses[near].append(name)
        return uses


def trace(asked: str, workdirs: Iterable[Place] = ()) -> Lineage:
    """The lineage of what `asked` names (see `asked.find`), as far as its own workdir, these and MLflow's lead to it.

    What cannot be found is a node without a place and a note. Raises BundleError: `asked` names nothing known.
    """
    shelf = Shelf([*own_workdir(asked), *workdirs] or [RUNS])
    versions = shelf.versions()
    roots = find(asked, shelf, versions)

    def inputs(name: Name) -> list[Name]:
        if name in versions:
            return [versions[name].export]
        bundle = shelf.get(name)
        return inputs_of(bundle) if bundle else []

    sources = dict.fromkeys(name for root in roots for name in reversed(inputs_first(root, inputs)))
    uses: dict[Name, list[Name]] = {}
    for name in [*shelf.bundles, *versions]:
        for wanted in inputs(name):
            uses.setdefault(wanted, []).append(name)
    results = dict.fromkeys(
        name for root in roots for name in reversed(inputs_first(root, lambda name: uses.get(name, [])))
    )
    in_order = dict.fromkeys([*reversed(sources), *results])
    nodes = {name: _node(name, shelf, versions, inputs(name)) for name in in_order}
    notes = [*shelf.notes, *(note for node in nodes.values() if (note := _note(node, shelf)))]
    return Lineage(asked, tuple(roots), tuple(sources), tuple(results), nodes, tuple(notes))


def _node(name: Name, shelf: Shelf, versions: dict[Name, Version], inputs: list[Name]) -> Node:
    if name in versions:
        return Node(name, "found", "", tuple(inputs), about_version(versions[name]))
    if name[0] == RAW:
        read_by = [bundle for bundle in shelf.bundles.values() if bundle.inputs.get(RAW) == name[1]]
        return Node(name, "found", "", (), origin(read_by))
    bundle = shelf.bundles.get(name)
    if bundle is None:
        return Node(name, "unknown", "", (), ())
    state = "gone" if name_of(bundle) in shelf.gone else "found"
    return Node(name, state, str(bundle.path), tuple(inputs), about(bundle))


def _note(node: Node, shelf: Shelf) -> str:
    advice = "if it was moved, give the workdir it is in now with --workdir"
    if node.state == "gone":
        where = f"is not in {node.place} any more" if node.place else f"is not in {', '.join(shelf.workdirs)}"
        return f"{node.title} {where} ({advice}); what it was made from is MLflow's word"
    if node.state == "unknown":
        return f"{node.title} is not in {', '.join(shelf.workdirs)} ({advice}); what lies behind it is not known"
    return ""
