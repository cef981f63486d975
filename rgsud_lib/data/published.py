"""The published rain sets: layout, split sizes, naming, pitfalls, and where each is published.

The facts are in `published.yaml`. Nothing is downloaded: licences differ, and most sets state none.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from rgsud_lib.config import Section
from rgsud_lib.errors import DataError

TABLE = Path(__file__).with_name("published.yaml")
COLUMNS = ("set", "kind", "pairs", "width x height", "published")


class PublishedSplit(Section):
    """One part of a set: its folder below the set's, and how many pairs (or images, if not `paired`) it has.

    `images` is None where no count is known; `sure` is False where it is only reported.
    """

    folder: str
    images: int | None
    sure: bool = True
    paired: bool = True

    def count(self) -> str:
        """Such as `200 pairs`, `about 784 pairs`, `? pairs`."""
        number = "?" if self.images is None else f"{'' if self.sure else 'about '}{self.images}"
        return f"{number} {'pairs' if self.paired else 'images'}"


class PublishedSet(Section):
    """A published set; `sizes` are (width, height) in pixels, either way round; empty: they vary or are unknown."""

    name: str
    aliases: tuple[str, ...] = ()
    kind: Literal["synthetic", "real", "synthetic and real"]
    splits: tuple[PublishedSplit, ...]
    sizes: tuple[tuple[int, int], ...] = ()
    naming: str
    paper: str
    home: str
    pitfalls: tuple[str, ...]

    def layout(self) -> str:
        """The folders that `rgsud data check` and `--paired` take, one a line."""
        lines = []
        for split in self.splits:
            if split.paired:
                lines.append(f"{self.name}/{split.folder}/rain/NAME.png   {split.count()}, rainy")
                lines.append(f"{self.name}/{split.folder}/clean/NAME.png  the same names")
            else:
                lines.append(f"{self.name}/*.png    {split.count()}, rainy")
        return "\n".join(lines)

    def row(self) -> tuple[str, ...]:
        """The set's cells under COLUMNS."""
        counts = ", ".join(f"{split.folder} {split.count().removesuffix(' pairs')}" for split in self.splits)
        sizes = ", ".join(f"{width} x {height}" for width, height in self.sizes) or "varies or not checked"
        return self.name, self.kind, counts, sizes, self.paper

    def describe(self) -> str:
        """All that is known, for a terminal."""
        names = f"{self.name} (also {', '.join(self.aliases)})" if self.aliases else self.name
        lines = [f"{names}: {self.kind}", f"  paper      {self.paper}", f"  published  {self.home}", "  layout"]
        lines += [f"    {line}" for line in self.layout().splitlines()]
        lines += [f"  size       {self.row()[3]}", f"  naming     {self.naming}", "  pitfalls"]
        lines += [f"    - {pitfall}" for pitfall in self.pitfalls]
        return "\n".join(lines)

    def absent(self, folder: str, found: str) -> DataError:
        """The error for a copy that is not there or not laid out as expected: says where, how, and where from."""
        layout = "\n".join(f"  {line}" for line in self.layout().splitlines())
        fix = f"naming: {self.naming}; published at {self.home}"
        return DataError(f"no copy of {self.name} in {folder} (found {found}); expected\n{layout}\n  {fix}")


@cache
def published_sets() -> tuple[PublishedSet, ...]:
    """All published sets, in the order of the table."""
    return tuple(PublishedSet.model_validate(entry) for entry in yaml.safe_load(TABLE.read_text()))


def published_set(name: str) -> PublishedSet:
    """The set of that name or alias, whatever its case, hyphens and underscores. Raises DataError: unknown."""
    known = {plain(alias): entry for entry in published_sets() for alias in (entry.name, *entry.aliases)}
    if found := known.get(plain(name)):
        return found
    begun = [key for key in known if plain(name) and key.startswith(plain(name))]
    close = difflib.get_close_matches(plain(name), known, n=3)
    near = list(dict.fromkeys(known[key].name for key in [*begun, *close]))[:3]
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    names = ", ".join(entry.name for entry in published_sets())
    raise DataError(f"unknown data set {name!r}; {guess}known are {names}")


def markdown_table() -> str:
    """The table of docs/data.md."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for entry in published_sets():
        *cells, paper = entry.row()
        lines.append(f"| {' | '.join(cells)} | [{paper}]({entry.home}) |")
    return "\n".join(lines) + "\n"


def plain(name: str) -> str:
    """A set's name without case, hyphens, underscores and spaces: how copies of it are told by their folders."""
    return re.sub(r"[-_ ]", "", name).lower()
