"""Scores kept in one SQLite file, so that the same pixels are scored once by each version of a scorer."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import time
from pathlib import Path

import torch
from torch import Tensor

from rgsud_lib.data.images import check_images
from rgsud_lib.errors import BundleError
from rgsud_lib.rewards.scorer import Scorer

TABLE = """CREATE TABLE IF NOT EXISTS scores (
    scorer TEXT, pixels TEXT, score REAL NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (scorer, pixels)
) WITHOUT ROWID"""


class ScoreCache:
    """The file. Every score is a transaction of its own: a killed process leaves all it had put, and nothing else.

    Several processes may share it. A context manager; raises BundleError for a file that is something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._connection.execute("PRAGMA synchronous=OFF")  # a cache: a crash of the machine may cost it
            self._connection.execute(TABLE)
        except sqlite3.DatabaseError as error:
            fix = "delete it, its scores are then computed again"
            raise BundleError(f"{path} cannot be used as a cache of scores ({error}); {fix}") from None

    def get(self, scorer: str, pixels: str) -> tuple[float, float] | None:
        """Score and the seconds it took, or None."""
        query = "SELECT score, seconds FROM scores WHERE scorer = ? AND pixels = ?"
        return self._connection.execute(query, (scorer, pixels)).fetchone()

    def put(self, scorer: str, pixels: str, score: float, seconds: float) -> None:
        self._connection.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", (scorer, pixels, score, seconds))

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()


class CachedScorer:
    """A scorer with the results of the one it wraps, bit for bit; what is in `cache` is not computed again.

    `seconds` grows by one entry a score: what that image cost when it was computed, be it in an earlier
    process. Scores that are not finite are never kept.
    """

    def __init__(self, scorer: Scorer, cache: ScoreCache) -> None:
        self.name, self.version, self.higher_is_better = scorer.name, scorer.version, scorer.higher_is_better
        self.seconds: list[float] = []
        self._scorer, self._cache, self._key = scorer, cache, f"{scorer.name} {scorer.version}"

    def __call__(self, output: Tensor, rainy: Tensor | None = None) -> Tensor:
        """Output and rainy B x 3 x H x W in [0,1] to B float32 scores. Raises what the scorer raises."""
        check_images(output, "output")
        pixels = [pixel_digest(image, rainy if rainy is None else rainy[row]) for row, image in enumerate(output)]
        found = [self._cache.get(self._key, digest) for digest in pixels]
        if missing := [row for row, known in enumerate(found) if known is None]:
            start = time.perf_counter()
            fresh = self._scorer(output[missing], rainy if rainy is None else rainy[missing]).tolist()
            seconds = (time.perf_counter() - start) / len(missing)
            for row, score in zip(missing, fresh, strict=True):
                found[row] = score, seconds
                if math.isfinite(score):
                    self._cache.put(self._key, pixels[row], score, seconds)
        self.seconds += [seconds for _, seconds in found]
        return torch.tensor([score for score, _ in found], dtype=torch.float32)


def pixel_digest(*images: Tensor | None) -> str:
    """SHA-256 (hex) over types, shapes and values of tensors; None counts as an image of its own."""
    digest = hashlib.sha256()
    for image in images:
        if image is None:
            digest.update(b"none\n")
            continue
        image = image.detach().cpu().contiguous()
        digest.update(f"{image.dtype} {tuple(image.shape)}\n".encode())
        digest.update(image.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
