"""A lineage for the terminal: two trees, what a thing was made from and what was made from it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from rgsud_lib.lineage import Name
from rgsud_lib.lineage.graph import Lineage


def tree(lineage: Lineage, width: int = 120) -> str:
    """Plain text. A branch that was shown before is not shown again."""
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    results = set(lineage.results)

    def used_by(name: Name) -> list[Name]:
        return [use for use in lineage.uses(name) if use in results]

    for root in lineage.roots:
        words = "\n".join(lineage.nodes[root].lines)
        console.print(_grown(lineage, root, lineage.steps, f"{words}\nmade from"))
        if used_by(root):
            console.print(_grown(lineage, root, used_by, "made into"))
    for note in lineage.notes:
        console.print(f"! {note}", markup=False)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _grown(lineage: Lineage, root: Name, nexts: Callable[[Name], Iterable[Name]], words: str) -> Tree:
    seen: set[Name] = set()

    def grow(branch: Tree, name: Name) -> None:
        for found in nexts(name):
            node = lineage.nodes[found]
            again = found in seen
            seen.add(found)
            twig = branch.add(Text(f"{node.title} (above)" if again else "\n".join(node.lines)))
            if not again:
                grow(twig, found)

    tree = Tree(Text(words))
    grow(tree, root)
    return tree
