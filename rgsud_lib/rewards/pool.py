"""The reward pool (paper, Algorithm 1): one slot per rainy training image, the best output ever seen.

Pictures lie on disk under names made of their content, so an index saved with a checkpoint always finds
its own pictures; `collect_garbage` removes what no saved index names. Several processes each offer to their
own copy of it, no two for the same image, and `exchange` what they changed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rgsud_lib import distributed
from rgsud_lib.data.manifest import content_id
from rgsud_lib.errors import BundleError, TrainingError
from rgsud_lib.files import write_bytes, write_png

Rescore = Callable[[str, np.ndarray], tuple[float, bool]]


@dataclass(frozen=True)
class Entry:
    """The best output of one image: its score, where and when it came from, and how the slot grew.

    An entry that the guard did not trust gives way to any that it does, whatever the scores.
    """

    score: float
    first_score: float
    step: int
    file: str
    source: str = "plain"
    trusted: bool = True
    offered: int = 1
    accepted: int = 1
    refused: int = 0


class RewardPool:
    """`policy` "reward" replaces on a score higher by more than `margin`, or after `max_age` steps (0: never);
    "last" replaces always (the self-distillation control)."""

    def __init__(
        self, folder: Path, scorer: str, version: str, policy: str = "reward", margin: float = 0.0, max_age: int = 0
    ):
        self.folder, self.scorer, self.version, self.policy = folder, scorer, version, policy
        self.margin, self.max_age = margin, max_age
        self.entries: dict[str, Entry] = {}
        self._decoded: dict[str, np.ndarray] = {}
        self._changed: dict[str, bool] = {}  # slots since the last exchange, and whether their picture is new
        folder.mkdir(parents=True, exist_ok=True)

    def offer(
        self, image_id: str, output: np.ndarray, score: float, step: int, source: str = "plain", trusted: bool = True
    ) -> bool:
        """Offer an output (uint8 H x W x 3); True where it replaces the pooled one.

        `trusted`: what the fidelity guard says. An empty slot takes what it gets; an untrusted reward may replace
        an untrusted one, never a trusted one.
        Raises TrainingError where the score is not finite: such a scorer cannot choose anything.
        """
        self._check_finite(image_id, score, step)
        held = self.entries.get(image_id)
        refused = int(not trusted) + (0 if held is None else held.refused)
        if held is not None and not self._better(held, score, step, trusted):
            self.entries[image_id] = replace(held, offered=held.offered + 1, refused=refused)
            self._changed.setdefault(image_id, False)
            return False
        file = f"{image_id}-{content_id(output)}.png"
        write_png(self.folder / file, output)
        self._decoded[image_id] = output
        entry = Entry(score, score, step, file, source, trusted, refused=refused)
        if held is not None:
            entry = replace(
                entry, first_score=held.first_score, offered=held.offered + 1, accepted=held.accepted + 1
            )  # fmt: skip
        self.entries[image_id] = entry
        self._changed[image_id] = True
        return True

    def exchange(self) -> int:
        """Take over what the other processes changed since the last exchange; returns how many slots all changed."""
        news = {name: (self.entries[name], new and self._decoded[name]) for name, new in self._changed.items()}
        self._changed = {}
        changed = 0
        for name, (entry, picture) in (item for share in distributed.gather(news) for item in share.items()):
            self.entries[name] = entry
            if picture is not False:
                self._decoded[name] = picture
                if distributed.leads_node() and not (self.folder / entry.file).exists():
                    write_png(self.folder / entry.file, picture)
            changed += 1
        return changed

    def _check_finite(self, image_id: str, score: float, step: int) -> None:
        if not math.isfinite(score):
            raise TrainingError(
                f"scorer {self.scorer!r} gave {score} for image {image_id} at step {step}; "
                "expected a finite score: choose another scorer"
            )

    def _better(self, held: Entry, score: float, step: int, trusted: bool) -> bool:
        if self.policy == "last":
            return True
        if trusted != held.trusted:
            return trusted
        too_old = 0 < self.max_age <= step - held.step
        return too_old or score > held.score + self.margin

    def image(self, image_id: str) -> np.ndarray:
        """The pooled output, uint8 H x W x 3. Raises BundleError where its file is missing."""
        if image_id not in self._decoded:
            path = self.folder / self.entries[image_id].file
            if not path.is_file():
                raise BundleError(f"pooled reward {path} is missing; delete the stage's folder and run it again")
            with Image.open(path) as picture:
                self._decoded[image_id] = np.asarray(picture.convert("RGB"))
        return self._decoded[image_id]

    def statistics(self) -> dict[str, float]:
        """Mean score, growth since the first score, filled slots, and the share of offers that were accepted."""
        entries = self.entries.values()
        offered = sum(entry.offered for entry in entries)
        if not offered:
            return {}
        return {
            "pool/score_mean": float(np.mean([entry.score for entry in entries])),
            "pool/growth_mean": float(np.mean([entry.score - entry.first_score for entry in entries])),
            "pool/filled": float(len(entries)),
            "pool/acceptance_rate": sum(entry.accepted for entry in entries) / offered,
            "pool/refused_rate": sum(entry.refused for entry in entries) / offered,
        } | {
            f"pool/from_{source}": count / len(entries)
            for source, count in sorted(Counter(entry.source for entry in entries).items())
        }

    def index(self) -> dict[str, Any]:
        """The JSON document that, with the pictures, is the pool."""
        return {
            "scorer": self.scorer, "version": self.version,
            "entries": {image_id: asdict(entry) for image_id, entry in sorted(self.entries.items())},
        }  # fmt: skip

    def restore(self, index: dict[str, Any]) -> None:
        """Take over an index. Raises BundleError where another scorer or another version of it wrote the scores."""
        if (index["scorer"], index["version"]) != (self.scorer, self.version):
            raise BundleError(
                f"the pool was scored by {index['scorer']} version {index['version']}, this run uses {self.scorer} "
                f"version {self.version}; scores of different versions cannot be compared: run stage 1 again with "
                "this scorer, or score the pool again with --set reinforcement.rescore=true"
            )
        self.entries = {image_id: Entry(**entry) for image_id, entry in index["entries"].items()}
        self._decoded.clear()

    def spread_pictures(self) -> None:
        """From rank 0's disk to those of the other nodes."""
        for entry in self.entries.values() if distributed.node_count() > 1 else ():
            path = self.folder / entry.file
            data = distributed.broadcast(path.read_bytes() if distributed.rank() == 0 else None)
            if distributed.leads_node() and not path.exists():
                write_bytes(path, data)
        distributed.wait()

    def adopt(self, index: dict[str, Any], folder: Path, steps: int, rescore: Rescore | None = None) -> None:
        """Start from another stage's pool, `steps` long, in `folder`. Its entries get negative steps: ages count on.

        `rescore(image_id, reward)` gives score and trust anew where another scorer or version filled the pool.
        Raises BundleError as `restore` does where that is not given, TrainingError where a score is not finite.
        """
        for entry in index["entries"].values():
            if distributed.leads_node() and not (self.folder / entry["file"]).exists():
                write_bytes(self.folder / entry["file"], (folder / entry["file"]).read_bytes())
        distributed.wait()
        ours = {"scorer": self.scorer, "version": self.version}
        foreign = {name: index[name] for name in ours} != ours
        self.restore(index | ours if foreign and rescore else index)
        self.entries = {name: replace(entry, step=entry.step - steps) for name, entry in self.entries.items()}
        for image_id in list(self.entries)[distributed.rank() :: distributed.world_size()] if foreign else []:
            score, trusted = rescore(image_id, self.image(image_id))
            self._check_finite(image_id, score, self.entries[image_id].step)
            self.entries[image_id] = replace(self.entries[image_id], score=score, first_score=score, trusted=trusted)
            self._changed[image_id] = False
        self.exchange()

    def collect_garbage(self) -> None:
        """Remove pictures that the present index does not name. Call it only after that index was saved."""
        named = {entry.file for entry in self.entries.values()}
        for path in self.folder.glob("*.png"):
            if path.name not in named:
                path.unlink()
