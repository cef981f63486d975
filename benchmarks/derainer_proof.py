"""Does every derainer train, survive a kill and export? 200 steps on real crops through the pipeline's own stage.

usage: python benchmarks/derainer_proof.py [--data ../shared/data] [--size tiny] [--derainers NAME ...]
           [--steps 200] [--out benchmarks/results/derainer_proof.json]

For each: stage 1 (half of the steps warm start, half unpaired training) undisturbed, and once more killed with SIGKILL
after half of the steps and begun again: every file must have the same bytes. All losses must be finite, the derainer's
must fall while the warm start lasts, and the ONNX file must agree with PyTorch on a photograph's part of odd size.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import write_record

from rgsud_lib import stages
from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.decode import decode
from rgsud_lib.data.images import to_tensor
from rgsud_lib.derainer_sizes import SIZES
from rgsud_lib.files import CHECKPOINT
from rgsud_lib.graph import capture, to_onnx
from rgsud_lib.inference import load_derainer
from rgsud_lib.training.checkpoint import MARKER
from rgsud_lib.training.curves import read_log

RAINY, CLEAN, SIDE = 6, 20, 160  # photographs of each kind, and pixels of their middle that is trained on
ODD = (101, 67)  # height and width of the exported networks' test
SETTINGS = """
critic.enabled=false reward.scorer=rain_layer warm_start.batch=2 training.batch=2 warm_start.crop=48 training.crop=48
training.threads=1 training.device=cpu training.log_every=5 training.validation_images=1 training.validate_every=100
"""


def configured(name: str, size: str, steps: int) -> Config:
    half = steps // 2
    own = [f"derainer.name={name}", f"derainer.size={size}", f"warm_start.steps={half}", f"training.steps={half}"]
    return load_config("cpu", [*SETTINGS.split(), *own, f"training.checkpoint_every={max(1, half // 2)}"])


def choose(data: Path, folder: Path) -> dict[str, str]:
    """The middles of the first photographs of Rain100L's rainy side and of the clean set, in folders of their own."""
    for role, source, count in (("rainy", "rain100L/rain", RAINY), ("clean", "clean_bsds", CLEAN)):
        (folder / role).mkdir()
        for file in sorted((data / source).iterdir())[:count]:
            with Image.open(file) as image:
                left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
                image.crop((left, top, left + SIDE, top + SIDE)).save(folder / role / f"{file.stem}.png")
    return {role: str(folder / role) for role in ("rainy", "clean")}


def train(config: Config, dataset: Path, workdir: Path) -> Path:
    return Path(stages.recycle(config, dataset, workdir))


def killed(config: Config, dataset: Path, workdir: Path, steps: int) -> int:
    """Train in another process and kill it once a checkpoint holds `steps` updates; how many it held."""
    process = get_context("spawn").Process(target=train, args=(config, dataset, workdir))
    process.start()
    while True:
        marker = next(workdir.glob(f"stages/recycle-*/{CHECKPOINT}/{MARKER}"), None)
        updates = json.loads(marker.read_text())["updates"] if marker else 0
        if updates >= steps or not process.is_alive():
            break
        time.sleep(0.02)
    alive = process.is_alive()
    process.kill()
    process.join()
    if not alive:
        raise SystemExit("the training ended before it could be killed; give more --steps")
    return updates


def losses(folder: Path) -> dict[str, object]:
    """Mean loss of the first and of the last fifth of the warm start, and whether all numbers are finite."""
    rows = read_log(folder / "log.jsonl")
    warm = [row["loss/derain"] for row in rows if row["phase"] == "warm_start"]
    fifth = max(1, len(warm) // 5)
    values = [value for row in rows for key, value in row.items() if key.startswith(("loss/", "gradient_norm/"))]
    finite = all(map(math.isfinite, values)) and not any("skipped_updates" in row for row in rows)
    return {"first": float(np.mean(warm[:fifth])), "last": float(np.mean(warm[-fifth:])), "finite": finite}


@torch.no_grad()
def onnx_difference(folder: Path, photograph: Path) -> float:
    import onnxruntime

    model = load_derainer(folder)
    session = onnxruntime.InferenceSession(to_onnx(capture(model), 18, {}), providers=["CPUExecutionProvider"])
    image = to_tensor(np.ascontiguousarray(decode(photograph.read_bytes(), 10**8)[: ODD[0], : ODD[1]]))
    (output,) = session.run(None, {"rainy": image.numpy()})
    return float(np.abs(output - model(image).clamp(0, 1).numpy()).max())


def prove(name: str, size: str, steps: int, dataset: Path, workdir: Path, photograph: Path) -> dict[str, object]:
    config = configured(name, size, steps)
    started = time.process_time()
    folder = train(config, dataset, workdir / "undisturbed")
    spent = time.process_time() - started
    updates = killed(config, dataset, workdir / "killed", steps // 2)
    again = train(config, dataset, workdir / "killed")
    return {
        "parameters": sum(parameter.numel() for parameter in load_derainer(folder).parameters()),
        "seconds": round(spent, 1),
        "loss": losses(folder),
        "killed_after": updates,
        "same_bytes": open_bundle(folder).digest == open_bundle(again).digest,
        "onnx_difference": onnx_difference(folder, photograph),
    }


def row(name: str, found: dict) -> str:
    loss, same = found["loss"], "yes" if found["same_bytes"] else "NO"
    numbers = f"{found['parameters'] / 1e6:.2f} | {loss['first']:.4f} | {loss['last']:.4f}"
    return f"| {name} | {numbers} | {'yes' if loss['finite'] else 'NO'} | {same} | {found['onnx_difference']:.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--size", default="tiny", choices=("published", "tiny", "mini"))
    parser.add_argument("--derainers", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/derainer_proof.json"))
    arguments = parser.parse_args()
    os.environ["RGSUD_TRACKING"] = "off"
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = choose(arguments.data, Path(folder))
        photograph = sorted((arguments.data / "rain100L" / "rain").iterdir())[0]
        dataset = Path(stages.prepare(configured("nafnet", "tiny", 2), *sources.values(), None, folder))
        for name in arguments.derainers:
            workdir = Path(folder) / name
            results[name] = prove(name, arguments.size, arguments.steps, dataset, workdir, photograph)
            shutil.rmtree(workdir)
            print(row(name, results[name]), flush=True)
    write_record(arguments.out, {"size": arguments.size, "steps": arguments.steps, "derainers": results})
    kept = all(found["same_bytes"] and found["loss"]["finite"] for found in results.values())
    better = all(found["loss"]["last"] < found["loss"]["first"] for found in results.values())
    sys.exit(not (kept and better and all(found["onnx_difference"] < 1e-3 for found in results.values())))


if __name__ == "__main__":
    main()
