"""The model that the repository keeps: half precision, one file, a card beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rgsud_lib.config import Config
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.errors import BundleError
from rgsud_lib.evaluation.evaluate import score_case
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.inference import load_derainer, save_derainer
from rgsud_lib.tables.arms import pairs_only

NAME = "rgsud-rain100l"
LARGEST = 15_000_000  # bytes
CARD = """# {name}

Removes rain from photographs. **For research only**: the images it was trained on state no licence.

| | |
|---|---|
| network | {network}, {parameters:.2f} M parameters, half precision |
| method | RGSUD with warm start and self-reinforcement, no pairs; settings in `benchmarks/results/gpu_weights.json` |
| steps | warm start {warm_start}, stage 1 {recycle}, stage 2 {reinforce}; seed {seed} |
| data | {rainy} rainy images of Rain100L's test set, {clean} photographs of BSDS500 of other scenes |
| device | {device} |
| {pairs} pairs of Rain100L | RGB {psnr_rgb:.2f} dB, SSIM {ssim_rgb:.4f}; Y {psnr_y:.2f} dB, SSIM {ssim_y:.4f} |
| doing nothing on them | RGB {nothing:.2f} dB |

{seen} of these pairs' rainy sides were trained on, without their clean originals. The last weights were taken; none
were picked by the pairs. `rgsud derain` uses this file where no model of your own is given. Made by
`benchmarks/gpu_agenda.sh`.
"""


def write_weights(config: Config, dataset: Path, model: Path, trained: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write NAME.safetensors and NAME.md into `folder`; returns what the card says.

    Raises BundleError: the file is larger than the repository takes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, data = folder / f"{NAME}.safetensors", Dataset.open(dataset)
    network = load_derainer(model).half()
    save_derainer(network, config.derainer, file, {"dataset_digest": data.digest, "use": "research only"})
    if file.stat().st_size > LARGEST:
        raise BundleError(f"{file} has {file.stat().st_size} bytes, more than {LARGEST}; train a smaller derainer")
    evaluation = pairs_only(config, dataset, {"model": file})
    for case in evaluation.cases:
        score_case(evaluation, case)
    facts = {
        "network": config.derainer.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        "bytes": file.stat().st_size,
        "warm_start": config.warm_start.steps,
        "recycle": config.training.steps,
        "reinforce": config.reinforcement.steps,
        "seed": config.training.seed,
        "rainy": len(data.select("rainy", "train")),
        "clean": len(data.select("clean", "train")),
        "pairs": len(evaluation.cases),
        "seen": sum(case.transductive for case in evaluation.cases),
        "nothing": trained["arms"]["doing nothing"]["psnr_rgb"],
        **{name: float(np.mean([row[name] for row in evaluation.rows])) for name in METRICS},
    }
    file.with_suffix(".md").write_text(CARD.format(name=NAME, device=trained["device"], **facts))
    return facts | {"settings": config.model_dump(mode="json")}
