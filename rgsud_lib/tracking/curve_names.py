"""The names of metrics as MLflow shows them: with their units, in the characters that it takes.

`log.jsonl` and `metrics.json` keep the names that the code uses; this is the one place that renames.
"""

from __future__ import annotations

import re

REFUSED = re.compile(r"[^\w\-. :/]")  # what MLflow takes in no metric's name, such as the + of an ensemble
# The first that is found in a name tells its unit; losses, rates, SSIM and learned scores have none.
UNITS = (
    (re.compile(r"(^|/)\w*psnr_(rgb|y)\b"), "dB"),
    (re.compile(r"^pool/filled$"), "images"),
    (re.compile(r"^pool/from_\w+$"), "share"),
)


def curve_name(name: str) -> str:
    """`validation/psnr_rgb` becomes `validation/psnr_rgb_dB`; a name that has its unit stays."""
    clean = REFUSED.sub("_", name)
    unit = next((unit for pattern, unit in UNITS if pattern.search(name)), "")
    return clean if not unit or clean.endswith(f"_{unit}") else f"{clean}_{unit}"
