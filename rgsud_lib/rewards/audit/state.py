"""What an audit is about and what it has measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rgsud_lib.config import Config
from rgsud_lib.data.decode import decode
from rgsud_lib.data.manifest import ImageRecord, Pair, read_image
from rgsud_lib.rewards.cache import CachedScorer
from rgsud_lib.storage.listing import SourceFile

INPUT = "input"  # doing nothing, the candidate beside the sources
QUALITY = ("psnr_rgb", "ssim_rgb")


@dataclass(frozen=True)
class Source:
    """Where one candidate of every image comes from; `outputs` holds its files by ids of rainy images."""

    name: str
    location: str
    outputs: dict[str, SourceFile]


@dataclass
class Audit:
    """What is audited and what was measured: each array of `scores` is pairs x candidates, the input last."""

    config: Config
    cache: Path
    device: str
    pairs: list[Pair] = field(default_factory=list)
    clean: list[ImageRecord] = field(default_factory=list)  # what scorers are fitted on
    sources: list[Source] = field(default_factory=list)
    scorers: list[CachedScorer] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def scenes(self) -> np.ndarray:
        """A number for the scene of each pair: pairs that share a clean image (other rain) are not independent."""
        return np.unique([pair.clean for pair in self.pairs], return_inverse=True)[1]

    @property
    def candidates(self) -> list[str]:
        return [*(source.name for source in self.sources), INPUT]

    def output(self, pair: Pair, candidate: int) -> np.ndarray:
        """A candidate of the pair's rainy image, uint8 H x W x 3."""
        if candidate == len(self.sources):
            return read_image(self.cache, pair.rainy)
        return decode(self.sources[candidate].outputs[pair.rainy].read(), self.config.data.max_pixels)
