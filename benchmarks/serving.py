"""The service under load, and what batching would gain: clients that each send image after image for a minute.

python benchmarks/serving.py --model FILE [--images FOLDER] [--clients 8] [--seconds 60] [--side 256]
"""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from PIL import Image
from record import write_record
from torch import nn

from rgsud_lib.data.images import to_tensor
from rgsud_lib.inference import derain, derain_image, load_derainer

RESULT = Path(__file__).parent / "results" / "serving.json"
MAIN = "from rgsud_pipelines.cli import main; main()"
BARE_SECONDS = 15.0  # before and after the load, since other work on the machine comes and goes
BATCHES, SIDES = (1, 2, 4, 8), (64, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, default=Path("../shared/data/rain100L/rain"))
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--side", type=int, default=256, help="of the square crops that are sent, PNG")
    given = parser.parse_args()
    model = load_derainer(given.model, "cuda" if torch.cuda.is_available() else "cpu")
    crops = [crop(file, given.side) for file in sorted(given.images.iterdir())[:16]]
    bare = [bare_rate(model, crops)]
    load = under_load(given.model, crops, given.clients, given.seconds)
    bare.append(bare_rate(model, crops))
    own = sum(one["cpu_seconds_per_image"] for one in bare) / len(bare)
    load["cpu_of_bare"] = round(load["cpu_seconds_per_image"] / own, 3)  # holds on a busy machine too
    setup = {"side": given.side, "clients": given.clients, "seconds": given.seconds, "load_average": os.getloadavg()[0]}
    setup["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    results = {"setup": setup, "bare": bare, "service": load, "batching": batching(model, crops)}
    write_record(RESULT, results)
    print(RESULT.read_text())


def crop(file: Path, side: int) -> np.ndarray:
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))[:side, :side]


@torch.inference_mode()
def bare_rate(model: nn.Module, crops: list[np.ndarray]) -> dict[str, float]:
    """The model itself, one image after the other, arrays in and out."""
    done, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < BARE_SECONDS:
        derain_image(model, crops[done % len(crops)], 512, 32)
        done += 1
    rate, each = done / (time.perf_counter() - start), (time.process_time() - cpu) / done
    return {"images_per_second": round(rate, 2), "cpu_seconds_per_image": round(each, 4)}


def under_load(model: Path, crops: list[np.ndarray], clients: int, seconds: float) -> dict[str, Any]:
    """What so many clients at once saw, and how the server ended."""
    command = [sys.executable, "-c", MAIN, "serve", "--model", str(model), "--port", "0", "--set", "notice_seconds=0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = next(found[1] for line in server.stderr if (found := re.search(r"(http://\S+)", line)))
    bodies = [encoded(image) for image in crops]
    before, stop = cpu_seconds(server), time.perf_counter() + seconds
    with ThreadPoolExecutor(clients) as pool:
        seen = list(
            pool.map(lambda number: one_client(address, bodies[number:] + bodies[:number], stop), range(clients))
        )
    used = cpu_seconds(server) - before
    server.send_signal(signal.SIGTERM)
    times = np.array([second for one, _ in seen for second in one])
    quantiles = dict(zip(("p50", "p95", "p99"), np.quantile(times, (0.5, 0.95, 0.99)), strict=True))
    return {
        "requests": len(times),
        "errors": sum(status != 200 for _, one in seen for status in one),
        "images_per_second": round(len(times) / seconds, 2),
        "cpu_seconds_per_image": round(used / len(times), 4),
        **{f"{name}_seconds": round(float(value), 3) for name, value in quantiles.items()},
        "exit_code": server.wait(120),
    }


def cpu_seconds(server: subprocess.Popen[str]) -> float:
    return sum(psutil.Process(server.pid).cpu_times()[:2])


def encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def one_client(address: str, bodies: list[bytes], stop: float) -> tuple[list[float], list[int]]:
    times, statuses = [], []
    with httpx.Client(base_url=address, timeout=120) as client:
        while (start := time.perf_counter()) < stop:
            statuses.append(client.post("/derain", content=bodies[len(times) % len(bodies)]).status_code)
            times.append(time.perf_counter() - start)
    return times, statuses


@torch.inference_mode()
def batching(model: nn.Module, crops: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Images a second by side and batch; rounds alternate between the batches, the best of five counts."""
    device = next(model.parameters()).device
    rates: dict[str, dict[str, float]] = {}
    for side in SIDES:
        best = dict.fromkeys(BATCHES, 0.0)
        for _ in range(5):
            for batch in BATCHES:
                images = to_tensor(np.stack([image[:side, :side] for image in crops[:batch]])).to(device)
                start = time.perf_counter()
                derain(model, images, 512, 32).cpu()
                best[batch] = max(best[batch], batch / (time.perf_counter() - start))
        rates[str(side)] = {str(batch): round(rate, 2) for batch, rate in best.items()}
    return rates


if __name__ == "__main__":
    main()
