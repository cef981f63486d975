"""The new-data check as a page: the decision and its reasons, the numbers behind them, the strangest new images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rgsud_lib import __version__
from rgsud_lib.config import NewDataConfig
from rgsud_lib.data.drift import PERMUTATIONS, WINDOW
from rgsud_lib.data.novelty import Novelty, Unusual
from rgsud_lib.evaluation.charts import histogram
from rgsud_lib.evaluation.page import render_page
from rgsud_lib.evaluation.pictures import Picture, Strip
from rgsud_lib.files import write_bytes
from rgsud_lib.retraining.new_data import Decision

THUMBNAIL = 480  # pixels of the longer side
NAMED = 50  # unreadable images listed one by one


def write_report(path: Path, config: NewDataConfig, decision: Decision) -> None:
    """Write the page; everything in it is escaped, pictures are data URIs."""
    found = decision.novelty or Novelty(new=())
    page = render_page(
        "rgsud_lib.retraining",
        "new_data.html",
        decision=decision,
        config=config,
        found=found,
        rain=[float(np.median(values)) if values else None for values in (found.known_rain, found.new_rain)],
        chart=histogram(
            "Rain intensity, share of images in percent", [("trained on", found.known_rain), ("new", found.new_rain)]
        ),
        strips=[_strip(rank, item) for rank, item in enumerate(found.unusual, 1)],
        unreadable=found.unreadable[:NAMED],
        permutations=PERMUTATIONS,
        window=WINDOW,
        version=__version__,
    )
    write_bytes(path, page.encode())


def _strip(rank: int, item: Unusual) -> Strip:
    picture = Image.fromarray(item.image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    shown = Picture(f"rain {item.intensity:.4f}", np.asarray(picture))
    return Strip(item.name, f"{rank}", "", [shown])
