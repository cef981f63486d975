"""pool.html: the reward pool as a table that sorts by a click, one row a rainy training image."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from rgsud_lib.evaluation.page import render_page
from rgsud_lib.rewards.pool import RewardPool

POOL_PAGE = "pool.html"
ROWS = 400  # at even ranks of the growth: a page of thousands would tell less and weigh more
THUMBNAIL, QUALITY = 160, 80  # pixels of the longer side, WebP


def pool_page(pool: RewardPool, load: Callable[[str], np.ndarray]) -> str:
    """One HTML file. `load` gives the rainy image of an id, uint8 H x W x 3. The same pool gives the same bytes."""
    ranked = sorted(pool.entries.items(), key=lambda item: (item[1].first_score - item[1].score, item[0]))
    chosen = np.unique(np.linspace(0, len(ranked) - 1, min(ROWS, len(ranked))).round().astype(int))
    rows = [
        {
            "rank": rank + 1,
            "id": ranked[rank][0],
            "entry": ranked[rank][1],
            "growth": ranked[rank][1].score - ranked[rank][1].first_score,
            "rainy": _thumbnail(load(ranked[rank][0])),
            "reward": _thumbnail(pool.image(ranked[rank][0])),
        }
        for rank in chosen
    ]
    growths = [entry.score - entry.first_score for _, entry in ranked]
    return render_page(
        "rgsud_lib.training",
        "pool.html",
        rows=rows,
        scorer=pool.scorer,
        version=pool.version,
        total=len(ranked),
        score=float(np.mean([entry.score for _, entry in ranked])) if ranked else 0.0,
        growth=float(np.mean(growths)) if ranked else 0.0,
        grown=sum(growth > 0 for growth in growths),
        untrusted=sum(not entry.trusted for _, entry in ranked),
    )


def _thumbnail(image: np.ndarray) -> str:
    """A data URI."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
