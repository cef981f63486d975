"""A rain video derained: are frames, times and sound the same, how much does it flicker, time and memory.

usage: python benchmarks/video.py --model PATH [--frames ../shared/data/real_video] [--keep DIR]
           [--out benchmarks/results/video.json]

Flicker is the mean absolute difference, in grey levels of 255, of a frame from the one before, warped onto it; over
the pixels where forward and backward flow agree to a pixel. The flow is that of the derained video for all three.
Sharpness is the mean absolute difference of neighbouring pixels, in the same levels: blurring would lower it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from record import write_record

from rgsud_lib.inference import Derainer
from rgsud_lib.inference.temporal import optical_flow, warp
from rgsud_lib.inference.video import derain_video

RATE, SAMPLES = 25, 48000  # frames and sound samples a second


def make_video(files: list[Path], target: Path) -> None:
    """H.264, near lossless, with a tone as sound."""
    with av.open(str(target), "w") as writer:
        video = writer.add_stream("libx264", rate=RATE, options={"crf": "10"})
        audio = writer.add_stream("aac", rate=SAMPLES)
        audio.layout = "mono"
        with Image.open(files[0]) as first:
            video.width, video.height = first.size
        for index, file in enumerate(files):
            with Image.open(file) as image:
                frame = av.VideoFrame.from_image(image.convert("RGB"))
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            writer.mux(video.encode(frame))
        writer.mux(video.encode(None))
        tone = np.sin(np.arange(SAMPLES * len(files) // RATE) * 440 * 2 * np.pi / SAMPLES).astype(np.float32) / 4
        for start in range(0, len(tone) - 1024, 1024):
            sound = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "fltp", "mono")
            sound.rate, sound.pts, sound.time_base = SAMPLES, start, Fraction(1, SAMPLES)
            writer.mux(audio.encode(sound))
        writer.mux(audio.encode(None))


def read_video(path: Path) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    """Frames, their times in seconds, and the packets of sound."""
    with av.open(str(path)) as reader:
        frames = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in reader.decode(video=0)]
    with av.open(str(path)) as reader:
        sound = [bytes(packet) for packet in reader.demux(audio=0) if packet.dts is not None]
    return [pixels for pixels, _ in frames], [seconds for _, seconds in frames], sound


def flows(frames: list[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """From each frame but the first to the one before, and where that flow is to be trusted (1 x 1 x H x W)."""
    found = []
    for before, frame in zip(frames, frames[1:], strict=False):
        back, forth = optical_flow(frame, before), optical_flow(before, frame)
        trusted = (back + warp(forth, back)).norm(dim=1, keepdim=True) < 1
        found.append((back, trusted))
    return found


def flicker(frames: list[np.ndarray], motion: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    def tensor(frame: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frame).permute(2, 0, 1)[None].float()

    differences = []
    for before, frame, (flow, trusted) in zip(frames, frames[1:], motion, strict=False):
        difference = (warp(tensor(before), flow) - tensor(frame)).abs().mean(dim=1, keepdim=True)
        differences.append(float(difference[trusted].mean()))
    return float(np.mean(differences))


def sharpness(frames: list[np.ndarray]) -> float:
    return float(np.mean([np.abs(np.diff(frame.astype(int), axis=axis)).mean() for frame in frames for axis in (0, 1)]))


def measured(derainer: Derainer, source: Path, target: Path, smooth: bool) -> dict[str, Any]:
    start, used = time.perf_counter(), time.process_time()
    count = derain_video(derainer, source, target, smooth=smooth)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - used}
    return {"frames": count, **seconds, "peak_rss_mb": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--frames", type=Path, default=Path("../shared/data/real_video"))
    parser.add_argument("--keep", type=Path, help="folder for the videos; else they are not kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/video.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    derainer = Derainer.load(arguments.model)
    files = sorted(arguments.frames.glob("*.jpg"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        names = {name: folder / f"{name}.mp4" for name in ("short", "rainy", "derained", "smoothed")}
        make_video(files[:10], names["short"])
        make_video(files, names["rainy"])
        results = {
            "ten_frames": measured(derainer, names["short"], folder / "short-derained.mp4", smooth=False),
            "derained": measured(derainer, names["rainy"], names["derained"], smooth=False),
            "smoothed": measured(derainer, names["rainy"], names["smoothed"], smooth=True),
        }
        read = {name: read_video(names[name]) for name in ("rainy", "derained", "smoothed")}
    _, times, sound = read["rainy"]
    equal = all(read[name][1] == times and read[name][2] == sound for name in ("derained", "smoothed"))
    motion = flows(read["derained"][0])
    scores = {
        name: {"flicker": flicker(frames, motion), "sharpness": sharpness(frames)}
        for name, (frames, _, _) in read.items()
    }
    trusted = float(np.mean([float(mask.float().mean()) for _, mask in motion]))
    height, width = read["rainy"][0][0].shape[:2]
    record = {"size": f"{width}x{height}", "tile": derainer.tile, "times_and_sound_equal": equal, "runs": results}
    write_record(arguments.out, record | {"trusted_share": trusted, "levels_of_255": scores})
    print(f"frame times and sound packets equal: {equal}; {results}")
    for name, score in scores.items():
        print(f"| {name} | {score['flicker']:.2f} | {score['sharpness']:.2f} |")


if __name__ == "__main__":
    main()
