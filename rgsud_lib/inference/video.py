"""Videos, frame by frame: times, rotation, colours' tags, sound and subtitles stay, memory does not grow.

Written as H.264 (VP9 in WebM) with 8 bits and 4:2:0 colour, near what the eye can tell from the original.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rgsud_lib.errors import DataError
from rgsud_lib.inference.derainer import Derainer
from rgsud_lib.inference.temporal import smoothed

if TYPE_CHECKING:
    import av

WRITTEN = (".mp4", ".mkv", ".mov", ".m4v", ".webm")
SUFFIXES = (*WRITTEN, ".avi", ".ts", ".mts", ".m2ts")  # these become .mkv, which holds every kind of sound
_ENCODERS = {".webm": ("libvpx-vp9", {"crf": "20", "b": "0", "cpu-used": "4", "row-mt": "1"})}
_H264 = ("libx264", {"crf": "17", "preset": "medium"})
_LIMITED, _FULL, _ITU601, _UNSPECIFIED = 1, 2, 5, (0, 2)  # FFmpeg's numbers of ranges and colour spaces
_CONTAINER_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}


@dataclass(frozen=True)
class _Shot:
    """A frame's time, its pixels (uint8 H x W x 3), and what was made of them."""

    pts: int
    time_base: Any
    rainy: np.ndarray
    derained: np.ndarray


def derain_video(
    derainer: Derainer, source: Path, target: Path, strength: float = 1.0, smooth: bool = False, compare: bool = False,
    max_pixels: int = 100_000_000, advance: Callable[[float], object] | None = None,
) -> int:  # fmt: skip
    """Derain a video file into another, which appears when it is whole; returns the number of frames.

    `smooth` evens out flicker (`temporal.smoothed`), `compare` puts the rainy frame beside the derained one, `advance`
    is told each share that was finished. Raises DataError: no video, damaged, a frame of more than `max_pixels`,
    a kind of sound that the target's container does not take.
    """
    import av

    beside = target.with_name(f".{target.stem}.partial{target.suffix}")
    with _explained(source):
        rotation = _rotation(source, max_pixels)
    try:
        with _explained(source), av.open(str(source)) as reader, av.open(str(beside), "w") as writer:
            shots = _derained(reader, writer, derainer, strength, rotation, compare, advance)
            count = _encode(writer, _smoothed(shots) if smooth else shots, rotation, compare)
        if not count:
            raise DataError(f"{source} has no frames")
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return count


def _rotation(source: Path, max_pixels: int) -> int:
    """Degrees, of the first frame. Raises DataError: no video in it, or too large a one."""
    import av

    with av.open(str(source)) as reader:
        if not reader.streams.video:
            raise DataError(f"{source} has no video stream")
        width, height = reader.streams.video[0].width, reader.streams.video[0].height
        if width * height > max_pixels:
            raise DataError(f"too many pixels: {width}x{height} is more than data.max_pixels={max_pixels}")
        return int(next(reader.decode(video=0)).rotation)


def _derained(
    reader: av.container.InputContainer, writer: av.container.OutputContainer, derainer: Derainer, strength: float,
    rotation: int, compare: bool, advance: Callable[[float], object] | None,
) -> Iterator[_Shot]:  # fmt: skip
    """Yield derained frames; the streams of the writer are made, and other packets copied, on the way."""
    from av.video.reformatter import VideoReformatter

    video = reader.streams.video[0]
    _add_video(writer, video, rotation, compare)
    others = [*reader.streams.audio, *reader.streams.subtitles]
    try:
        copies = {stream.index: writer.add_stream_from_template(stream) for stream in others}
    except ValueError as error:
        raise DataError(f"sound or subtitles do not fit: {error}; write .mkv") from None
    writer.metadata.update({key: text for key, text in reader.metadata.items() if key not in _CONTAINER_TAGS})
    expected = video.frames or int((reader.duration or 0) / 1e6 * (video.average_rate or 0))
    reformatter = VideoReformatter()
    for packet in reader.demux([video, *others]):
        if packet.stream_index in copies:
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                writer.mux(packet)
            continue
        for frame in packet.decode():
            if frame.is_corrupt or frame.pts is None:
                raise DataError(
                    f"damaged video: a broken frame after {frame.time or 0:.2f} s; copy or cut the file again"
                )
            rainy = reformatter.reformat(
                frame, format="rgb24", src_colorspace=_colours(frame), dst_colorspace=_colours(frame),
                src_color_range=_FULL if frame.color_range == _FULL else _LIMITED, dst_color_range=_FULL,
            ).to_ndarray()  # fmt: skip
            yield _Shot(frame.pts, frame.time_base, rainy, derainer.rgb(rainy, strength))
            if advance is not None and expected:
                advance(1 / expected)


def _add_video(writer: av.container.OutputContainer, video: av.VideoStream, rotation: int, compare: bool) -> None:
    name, options = _ENCODERS.get(Path(writer.name).suffix.lower(), _H264)
    stream = writer.add_stream(name, rate=video.average_rate or video.guessed_rate, options=options)
    upright = rotation % 180 == 0
    stream.width = video.width * (1 + (compare and upright))
    stream.height = video.height * (1 + (compare and not upright))
    stream.pix_fmt = "yuv444p" if stream.width % 2 or stream.height % 2 else "yuv420p"
    context, given = stream.codec_context, video.codec_context
    context.time_base = video.time_base
    context.color_range, context.colorspace = _LIMITED, given.colorspace
    context.color_primaries, context.color_trc = given.color_primaries, given.color_trc
    if video.sample_aspect_ratio:
        context.sample_aspect_ratio = video.sample_aspect_ratio
    if rotation:
        stream.set_display_rotation(rotation)


def _encode(writer: av.container.OutputContainer, shots: Iterable[_Shot], rotation: int, compare: bool) -> int:
    import av
    from av.video.reformatter import VideoReformatter

    reformatter, count = VideoReformatter(), 0
    for shot in shots:
        stream = writer.streams.video[0]
        pixels = shot.derained
        if compare:
            first, second = (shot.derained, shot.rainy) if rotation in (180, -180, -90) else (shot.rainy, shot.derained)
            pixels = np.concatenate([first, second], axis=1 if rotation % 180 == 0 else 0)
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame = reformatter.reformat(
            frame, format=stream.pix_fmt, src_colorspace=_colours(stream.codec_context),
            dst_colorspace=_colours(stream.codec_context), src_color_range=_FULL, dst_color_range=_LIMITED,
        )  # fmt: skip
        frame.pts, frame.time_base = shot.pts, shot.time_base
        writer.mux(stream.encode(frame))
        count += 1
    if count:
        writer.mux(stream.encode(None))
    return count


def _smoothed(shots: Iterable[_Shot]) -> Iterator[_Shot]:
    """One frame late, as each looks at the one before and the one after."""
    window: list[_Shot | None] = [None]
    for shot in shots:
        window.append(shot)
        if len(window) == 3:
            yield _middle(*window)
            window.pop(0)
    if len(window) == 2:
        yield _middle(*window, None)


def _middle(previous: _Shot | None, shot: _Shot, following: _Shot | None) -> _Shot:
    around = [other.derained if other else None for other in (previous, following)]
    return replace(shot, derained=smoothed(around[0], shot.derained, around[1]))


def _colours(described: Any) -> int:
    """The colour matrix of a frame or codec; where none is stated BT.601, in and out, so that nothing changes."""
    return _ITU601 if described.colorspace in _UNSPECIFIED else described.colorspace


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # the disk, not the video
        raise DataError(f"damaged video: {error}; copy or cut the file again") from error
