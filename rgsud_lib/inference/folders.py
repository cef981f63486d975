"""Jobs done one after the other: a broken file is noted, the others are made; what is written is whole."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from rgsud_lib.config import DataConfig
from rgsud_lib.data.reading import check_bytes
from rgsud_lib.errors import DataError
from rgsud_lib.files import write_bytes
from rgsud_lib.inference.derainer import Derainer
from rgsud_lib.inference.jobs import Job
from rgsud_lib.inference.pictures import Picture, encode_picture, read_picture
from rgsud_lib.inference.video import derain_video
from rgsud_lib.storage import transfer
from rgsud_lib.storage.s3 import is_remote

FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk fails all jobs alike
Advance = Callable[[float], object]
Group = list[tuple[Job, Picture | None]]  # one video, or pictures of one size
Result = TypeVar("Result")


class Worker:
    """How jobs are done: with which derainer, how strongly, with the original beside it, and smoothed in time."""

    def __init__(self, derainer: Derainer, strength: float = 1.0, compare: bool = False, smooth: bool = False):
        self.derainer = derainer
        self.strength = strength
        self.compare = compare
        self.smooth = smooth
        self.failures: dict[str, str] = {}  # reason by address of the source
        self._limits = DataConfig()

    def run(self, jobs: Sequence[Job], advance: Advance = lambda share: None) -> Iterator[str | None]:
        """Yield each job's output once it is written, or None where it failed: `failures` then says why.

        `advance` is told the shares of a job that were done on the way.
        """
        for group in self._groups(jobs):
            if not group:
                yield None
            elif group[0][1] is None:
                yield self._video(group[0][0], advance)
            else:
                yield from self._pictures(group, advance)

    def _groups(self, jobs: Sequence[Job]) -> Iterator[Group]:
        """Neighbouring pictures of one size together, as many as the derainer takes at once; empty for a broken one."""
        group: Group = []
        for job in jobs:
            picture = None if job.is_video else self._attempt(job, self._read)
            alike = group and picture and group[0][1] and _like(group[0][1]) == _like(picture)
            if group and not (alike and len(group) < self.derainer.batch):
                yield group
                group = []
            if picture or job.is_video:
                group.append((job, picture))
            else:
                yield []
        if group:
            yield group

    def _read(self, job: Job) -> Picture:
        check_bytes(self._limits, job.source)
        return read_picture(job.source.read(), self._limits.max_pixels)

    def _pictures(self, group: Group, advance: Advance) -> Iterator[str | None]:
        rainy = np.stack([picture.samples for _, picture in group if picture])
        results = self.derainer.samples(rainy, self.strength, lambda share: advance(share * len(group)))
        if self.compare:
            results = np.concatenate([rainy, results], axis=2)
        for (job, picture), result in zip(group, results, strict=True):
            shown = replace(picture, samples=result) if picture else None
            yield self._attempt(job, lambda job, shown=shown: _write(job.target, encode_picture(shown, job.target)))

    def _video(self, job: Job, advance: Advance) -> str | None:
        def make(job: Job) -> str:
            with TemporaryDirectory(prefix="rgsud-") as scratch:
                source, target = Path(job.source.address), Path(job.target)
                if is_remote(job.source.address):
                    source = Path(scratch) / f"source{PurePosixPath(job.source.name).suffix}"
                    transfer.download(job.source.address, source)
                if is_remote(job.target):
                    target = Path(scratch) / f"target{PurePosixPath(job.target).suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                settings = (self.strength, self.smooth, self.compare, self._limits.max_pixels, advance)
                derain_video(self.derainer, source, target, *settings)
                if is_remote(job.target):
                    transfer.upload(target, job.target)
            return job.target

        return self._attempt(job, make)

    def _attempt(self, job: Job, action: Callable[[Job], Result]) -> Result | None:
        """The action's result; None, and a note, where it failed for a reason of this file's."""
        try:
            return action(job)
        except (DataError, OSError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            self.failures[job.source.address] = str(error)
            return None


def _like(picture: Picture) -> tuple[tuple[int, ...], np.dtype]:
    return picture.samples.shape, picture.samples.dtype


def _write(target: str, data: bytes) -> str:
    if is_remote(target):
        transfer.write(target, data)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(Path(target), data)
    return target
