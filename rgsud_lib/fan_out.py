"""Large sets are checked and scored by several tasks at once, each of which does one shard and leaves a bundle.

`prepare` and `evaluate` put the shards together and do themselves what is missing, so that one task and many
give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Config
from rgsud_lib.cost.spent import Spent
from rgsud_lib.errors import ConfigError
from rgsud_lib.storage.remote import is_finished, open_anywhere, pulled, remove

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The part `index` (from 0) of `count` of whatever a set lists; `sources` is the digest of the set's files.

    As text `2/4:1a2b...`, so that a change of the files is a change of KFP's cache key.
    """

    index: int = 0
    count: int = 1
    sources: str = ""

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Raises ConfigError: not what str() of a shard gives."""
        found = re.fullmatch(r"(\d+)/(\d+):(\w*)", text)
        if not found or int(found[1]) >= int(found[2]):
            raise ConfigError(f"shard {text!r}: expected INDEX/COUNT:DIGEST with INDEX below COUNT, such as 0/4:1a2b")
        return cls(int(found[1]), int(found[2]), found[3])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}:{self.sources}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its share of a list: shards in order make the whole, their lengths differ by one at most."""
        return items[len(items) * self.index // self.count : len(items) * (self.index + 1) // self.count]

    def siblings(self) -> list[Shard]:
        return [Shard(index, self.count, self.sources) for index in range(self.count)]


@dataclass(frozen=True)
class Parts:
    """Bundles of this kind at `places`, one a shard, as far as they were made ahead."""

    kind: str
    places: Sequence[str]

    def folders(self) -> list[Path | None]:
        """Verified; None for a shard that is still to be done."""
        made = [pulled(place) if is_finished(place) else None for place in self.places] or [None]
        return [folder and open_bundle(folder, self.kind).path for folder in made]

    def spent(self) -> list[Spent]:
        """What those that were made ahead took."""
        made = [open_anywhere(place, self.kind) for place in self.places if is_finished(place)]
        return [Spent.parse(line) for bundle in made for line in bundle.cost]

    def remove(self) -> None:
        """They have been put together."""
        for place in self.places:
            remove(place)


def plan_shards(config: Config, rainy: str, clean: str, paired: str | None) -> list[str]:
    """The shards, as text, of the images at these folders or `s3://` prefixes: one where they are few.

    Raises DataError for what `prepare` would refuse before it reads an image.
    """
    from rgsud_lib.data.prepare import source_digest
    from rgsud_lib.data.sources import find_sources

    sources = find_sources(rainy, clean, paired)
    images = len(sources.rainy) + len(sources.clean) + 2 * len(sources.pairs)
    count = -(-images // config.fan_out.images)
    return [str(shard) for shard in Shard(0, count, source_digest(rainy, clean, paired)).siblings()]
