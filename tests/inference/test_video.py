"""Videos: frames, times, sound, rotation and colours stay; flicker goes where frames agree."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from torch import Tensor, nn

from rgsud_lib.errors import DataError
from rgsud_lib.inference import Derainer
from rgsud_lib.inference.folders import Worker
from rgsud_lib.inference.jobs import plan
from rgsud_lib.inference.temporal import optical_flow, smoothed
from rgsud_lib.inference.video import derain_video
from rgsud_lib.storage import transfer

WIDTH, HEIGHT, COUNT = 96, 64, 7


class Identity(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Darker(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 0.5


def scene(shift: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A smooth pattern that moves to the left."""
    rows, columns = np.mgrid[0:height, 0:width]
    wave = np.sin((columns + shift) / 5) + np.cos(rows / 4 + (columns + shift) / 9)
    return np.repeat(((wave + 2) * 50 + 20).astype(np.uint8)[..., None], 3, -1)


def make(path: Path, rotation: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), colorspace: int = 2) -> Path:
    """Frames at uneven times, and a tone."""
    with av.open(str(path), "w") as writer:
        video = writer.add_stream("libx264", rate=24, options={"crf": "8"})
        video.width, video.height = size
        video.pix_fmt = "yuv444p" if size[0] % 2 else "yuv420p"
        video.codec_context.time_base, video.codec_context.colorspace = Fraction(1, 1000), colorspace
        if rotation:
            video.set_display_rotation(rotation)
        audio = writer.add_stream("aac", rate=8000)
        audio.layout = "mono"
        writer.metadata["title"] = "drive"
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(scene(index, *size), "rgb24")
            frame.pts, frame.time_base = index * 41 + (9 if index % 3 else 0), Fraction(1, 1000)
            writer.mux(video.encode(frame))
        writer.mux(video.encode(None))
        for start in range(0, 2048, 1024):
            tone = np.sin(np.arange(start, start + 1024) / 9).astype(np.float32)[None] / 4
            sound = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            sound.rate, sound.pts, sound.time_base = 8000, start, Fraction(1, 8000)
            writer.mux(audio.encode(sound))
        writer.mux(audio.encode(None))
    return path


def read(path: Path) -> tuple[list[tuple[float, int]], np.ndarray, list[tuple[float, bytes]]]:
    """(time, rotation) of each frame, the pixels, and the packets of sound."""
    with av.open(str(path)) as reader:
        frames = [(frame.time, frame.rotation, frame.to_ndarray(format="rgb24")) for frame in reader.decode(video=0)]
    with av.open(str(path)) as reader:
        packets = [packet for packet in reader.demux(audio=0) if packet.dts is not None]
        sound = [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]
    return [frame[:2] for frame in frames], np.stack([frame[2] for frame in frames]).astype(int), sound


@pytest.mark.parametrize(
    ("name", "options", "smooth"),
    [
        ("a.mp4", {"size": (95, 63)}, True),
        ("a.mkv", {"colorspace": 1}, False),
        ("a.mov", {"rotation": 90}, False),
    ],
)
def test_times_sound_rotation_and_colours_stay(name: str, options: dict, smooth: bool, tmp_path: Path) -> None:
    source, target = make(tmp_path / name, **options), tmp_path / f"out-{name}"
    shares: list[float] = []
    count = derain_video(Derainer(Identity(), "cpu"), source, target, smooth=smooth, advance=shares.append)
    before, after = read(source), read(target)
    assert count == len(after[0]) == COUNT
    assert after[0] == before[0] and after[2] == before[2]
    assert np.abs(after[1] - before[1]).mean() < (6 if smooth else 1.5)
    assert sum(shares) == pytest.approx(1, abs=0.3)
    with av.open(str(target)) as reader:
        assert {key.lower(): text for key, text in reader.metadata.items()}["title"] == "drive"
        if "colorspace" in options:
            assert reader.streams.video[0].codec_context.colorspace == options["colorspace"]
    assert [path.name for path in tmp_path.iterdir()].count(target.name) == 1 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_before_stands_on_the_left_of_after_as_it_is_seen(rotation: int, tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", rotation)
    derain_video(Derainer(Darker(), "cpu"), source, tmp_path / "b.mp4", compare=True)
    times, frames, _ = read(tmp_path / "b.mp4")
    seen = np.rot90(frames[0], times[0][1] // 90)
    half = seen.shape[1] // 2
    assert half == (HEIGHT if rotation in (90, -90) else WIDTH)
    assert seen[:, half:].mean() == pytest.approx(seen[:, :half].mean() / 2, rel=0.1)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    derainer, source = Derainer(Identity(), "cpu"), make(tmp_path / "a.mp4")
    data = source.read_bytes()
    (tmp_path / "bad.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="damaged video"):
        derain_video(derainer, tmp_path / "bad.mp4", tmp_path / "out.mp4")
    with pytest.raises(DataError, match="too many pixels: 96x64"):
        derain_video(derainer, source, tmp_path / "out.mp4", max_pixels=1000)
    with pytest.raises(DataError, match=r"do not fit: .*webm.* write \.mkv"):
        derain_video(derainer, source, tmp_path / "out.webm")  # AAC
    with av.open(str(tmp_path / "sound.mkv"), "w") as writer, av.open(str(source)) as reader:
        stream = writer.add_stream_from_template(reader.streams.audio[0])
        for packet in reader.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    with pytest.raises(DataError, match="no video stream"):
        derain_video(derainer, tmp_path / "sound.mkv", tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "bad.mp4", "sound.mkv"]


def test_a_video_among_pictures_and_in_s3(s3_bucket: str, tmp_path: Path) -> None:
    transfer.upload(make(tmp_path / "a.mp4"), f"{s3_bucket}/rain/a.mp4")
    worker = Worker(Derainer(Darker(), "cpu"))
    assert list(worker.run(plan([f"{s3_bucket}/rain"], f"{s3_bucket}/out")[0])) == [f"{s3_bucket}/out/a.mp4"]
    transfer.download(f"{s3_bucket}/out/a.mp4", tmp_path / "b.mp4")
    assert read(tmp_path / "b.mp4")[1].mean() == pytest.approx(read(tmp_path / "a.mp4")[1].mean() / 2, rel=0.05)


def test_the_flow_is_the_motion() -> None:
    flow = optical_flow(scene(3, 160, 120), scene(0, 160, 120))[0, :, 20:-20, 20:-20]
    assert flow[0].median() == pytest.approx(3, abs=0.3)
    assert flow[1].median() == pytest.approx(0, abs=0.3)


def test_smoothing_removes_flicker_along_the_motion_and_spares_what_moves_otherwise() -> None:
    random = np.random.default_rng(0)
    clean = [scene(2 * index, 160, 120) for index in range(3)]
    noisy = [np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8) for image in clean]

    def error(image: np.ndarray) -> float:
        return float(np.abs(image.astype(int) - clean[1])[10:-10, 10:-10].mean())

    assert error(smoothed(*noisy)) < 0.75 * error(noisy[1])
    assert error(smoothed(None, *noisy[1:])) < 0.9 * error(noisy[1])
    assert np.array_equal(smoothed(None, noisy[1], None), noisy[1])
    appearing = clean[1].copy()
    appearing[40:70, 60:90] = 250  # a thing that is in no other frame
    kept = smoothed(clean[0], appearing, clean[2])[45:65, 65:85]
    assert kept.min() > 240
