"""Is a smaller number format faster than float32, here, and what does it cost? The same pictures in every variant.

usage: python benchmarks/export_variants.py --model MODEL --dataset BUNDLE --pairs DIR
           [--images 50] [--rounds 3] [--out benchmarks/results/export_variants.json]

BUNDLE is a run's `stages/prepare-*`: int8 is calibrated on its rainy training images. One thread; seconds are the
process's own (CPU time), so that a busy machine does not change them; the variants take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from record import write_record
from tqdm import tqdm

from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.graph import INPUT, Clamped, capture, others_warnings_ignored, to_bytes, to_onnx
from rgsud_lib.inference import load_derainer

CROPS, SIDE = 32, 128  # of the calibration
Runner = Callable[[np.ndarray], np.ndarray]  # 1 x 3 x H x W float32 in [0,1] to the same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="with rain/ and clean/")
    parser.add_argument("--images", type=int, default=50, help="of the pairs, in the order of their names")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing, on the first picture")
    parser.add_argument("--opset", type=int, default=18)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/export_variants.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = sorted(path.name for path in (given.pairs / "rain").iterdir())[: given.images]
    pairs = [tuple(picture(given.pairs / side / name) for side in ("rain", "clean")) for name in names]
    with TemporaryDirectory() as folder:
        variants, megabytes = make_variants(given.model, given.dataset, given.opset, Path(folder))
        seconds = timed(variants, pairs[0][0], given.rounds)
        quality = {name: measured(run, pairs, name) for name, run in variants.items()}
    table = {
        name: {
            "megabytes": megabytes[name],
            "seconds": round(seconds[name], 4),
            "speed_of_onnx_fp32": round(seconds["onnx_fp32"] / seconds[name], 3),
            "psnr_rgb": round(quality[name], 3),
            "psnr_cost": round(quality["torch_fp32"] - quality[name], 3),
        }
        for name in variants
    }
    about = {"model": str(given.model), "images": len(names), "timed_on": list(pairs[0][0].shape), "threads": 1}
    write_record(given.out, about | {"variants": table})
    for name, row in table.items():
        print(f"{name:18s}" + "  ".join(f"{key} {value}" for key, value in row.items()))


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return to_tensor(np.array(image.convert("RGB"))).numpy()


@others_warnings_ignored()
def make_variants(model: Path, dataset: Path, opset: int, folder: Path) -> tuple[dict[str, Runner], dict[str, float]]:
    """The runners, and the sizes of their files, by name."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.transformers.float16 import convert_float_to_float16

    derainer = load_derainer(model)
    program = capture(derainer)
    names = ("onnx_fp32", "onnx_fp16", "onnx_int8_dynamic", "onnx_int8_static")
    files = {name: folder / f"{name}.onnx" for name in names}
    exact, half, dynamic, static = files.values()
    exact.write_bytes(to_onnx(program, opset, {}))
    onnx.save(convert_float_to_float16(onnx.load(exact), keep_io_types=True), half)
    quantize_dynamic(exact, dynamic, weight_type=QuantType.QUInt8)
    quantize_static(exact, static, Crops(dataset), per_channel=True)
    runners: dict[str, Runner] = {
        "torch_fp32": torch_runner(Clamped(derainer)),
        "torch_bf16": torch_runner(Clamped(derainer), torch.bfloat16),
        "torch_export_fp32": torch_runner(program.module()),
    }
    weights = sum(parameter.numel() for parameter in derainer.parameters()) * 4 / 1e6
    megabytes = dict.fromkeys(runners, weights) | {"torch_export_fp32": len(to_bytes(program, {})) / 1e6}
    for name, file in files.items():
        runners[name] = onnx_runner(file)
        megabytes[name] = file.stat().st_size / 1e6
    return runners, {name: round(size, 3) for name, size in megabytes.items()}


class Crops:
    """What onnxruntime calibrates int8 on: the middles of rainy training images."""

    def __init__(self, dataset: Path) -> None:
        data = Dataset.open(dataset)
        images = (data.image(record.id) for record in data.select("rainy", "train")[:CROPS])
        self.crops = iter([to_tensor(middle(image)).numpy() for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        crop = next(self.crops, None)
        return None if crop is None else {INPUT: crop}


def middle(image: np.ndarray) -> np.ndarray:
    top, left = ((length - SIDE) // 2 for length in image.shape[:2])
    return image[top : top + SIDE, left : left + SIDE]


def torch_runner(module: Callable[[torch.Tensor], torch.Tensor], precision: torch.dtype | None = None) -> Runner:
    @torch.no_grad()
    def run(image: np.ndarray) -> np.ndarray:
        rainy = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", precision, enabled=precision is not None):
            return module(rainy).float().numpy()

    return run


def onnx_runner(file: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {INPUT: image})[0]


def timed(variants: dict[str, Runner], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Median seconds of CPU time an image takes; the first of each does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            start = time.process_time()
            run(image)
            seconds[name].append(time.process_time() - start)
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def measured(run: Runner, pairs: list[tuple[np.ndarray, ...]], name: str) -> float:
    """Mean PSNR (RGB, on 8-bit outputs) against the clean pictures, dB."""
    values = []
    for rainy, clean in tqdm(pairs, desc=name, disable=None):
        error = np.round(run(rainy) * 255) - np.round(clean * 255)
        values.append(10 * np.log10(255**2 / np.mean(error.astype(np.float64) ** 2)))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
