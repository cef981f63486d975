"""What is to be derained into what: images and videos of files, folders, globs and `s3://` prefixes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rgsud_lib.errors import DataError
from rgsud_lib.inference import pictures, video
from rgsud_lib.storage.listing import SourceFile, list_files
from rgsud_lib.storage.s3 import is_remote

SUFFIXES = (*pictures.FORMATS, *video.SUFFIXES)


@dataclass(frozen=True)
class Job:
    """One file and where its result goes: a path or an `s3://` address, whose suffix is the format."""

    source: SourceFile
    target: str

    @property
    def is_video(self) -> bool:
        return _suffix(self.source.name) in video.SUFFIXES


def plan(
    sources: Sequence[str], target: str, picture_format: str | None = None, existing: str = "refuse"
) -> tuple[list[Job], int]:
    """The jobs of all sources, and how many more are done already, their outputs being there.

    A single file goes to the file that `target` names, where it has an image's or a video's suffix; all else into the
    folder or prefix `target`, folders' structure kept, in its own format unless `picture_format` ("png") says another.
    Outputs that exist are refused, or, with `existing` "skip" or "replace", passed over or made again.
    Raises DataError: nothing to do, a source that does not exist, two that would become one output.
    """
    files = [file for source in sources for file in _expand(source, target)]
    single = len(sources) == 1 and len(files) == 1 and files[0].address == sources[0]
    if single and _suffix(target) in SUFFIXES and not os.path.isdir(target):
        jobs = [Job(files[0], target)]
        if jobs[0].is_video != (_suffix(target) in video.WRITTEN):
            kinds = ("an image", video.WRITTEN) if not jobs[0].is_video else ("a video", tuple(pictures.FORMATS))
            raise DataError(
                f"{files[0].name} is {kinds[0]} and {target} is not; name it {', '.join(_written(jobs[0]))}"
            )
    else:
        jobs = [Job(file, f"{target.rstrip('/')}/{_output_name(file.name, picture_format)}") for file in files]
    if not jobs:
        raise DataError(f"{', '.join(sources)}: no images or videos there ({', '.join(SUFFIXES)})")
    _check_outputs(jobs)
    present = _present(jobs, target)
    if present and existing == "refuse":
        first = next(job.target for job in jobs if job.target in present)
        fix = "give --resume to make the others only, --overwrite to make all again, or another target"
        raise DataError(f"{first} exists ({len(present)} such files); {fix}")
    if existing == "skip":
        return [job for job in jobs if job.target not in present], len(present)
    return jobs, 0


def _expand(source: str, target: str) -> Iterable[SourceFile]:
    if is_remote(source) and _suffix(source) in SUFFIXES:
        return [SourceFile(PurePosixPath(source).name, source, 0)]
    if is_remote(source) or os.path.isdir(source):
        output = os.path.realpath(target)  # of an earlier call; it may lie inside
        inside = output != os.path.realpath(source)
        return [
            file
            for file in list_files(source)
            if _suffix(file.name) in SUFFIXES
            and (is_remote(source) or not (inside and Path(os.path.realpath(file.address)).is_relative_to(output)))
        ]
    if os.path.isfile(source):
        return [SourceFile(Path(source).name, source, os.path.getsize(source))]
    if glob.has_magic(source):
        parts = Path(source).parts
        fixed = Path(*parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))])
        found = [path for path in sorted(glob.glob(source, recursive=True)) if _suffix(path) in SUFFIXES]
        return [
            SourceFile(Path(path).relative_to(fixed).as_posix(), path, os.path.getsize(path))
            for path in found
            if os.path.isfile(path)
        ]
    raise DataError(f"{source} does not exist; give an image, a video, a folder, a quoted glob or s3://bucket/prefix")


def _output_name(name: str, picture_format: str | None) -> str:
    path = PurePosixPath(name)
    if _suffix(name) in video.SUFFIXES:
        return name if _suffix(name) in video.WRITTEN else str(path.with_suffix(".mkv"))
    return str(path.with_suffix(f".{picture_format}")) if picture_format else name


def _written(job: Job) -> tuple[str, ...]:
    return video.WRITTEN if job.is_video else tuple(pictures.FORMATS)


def _check_outputs(jobs: Sequence[Job]) -> None:
    origins: dict[str, str] = {}
    for job in jobs:
        if origins.setdefault(job.target, job.source.address) != job.source.address:
            both = f"{origins[job.target]} and {job.source.address}"
            raise DataError(f"{both} would both become {job.target}; rename one or derain them one by one")
        if job.target == job.source.address or _same_file(job.target, job.source.address):
            raise DataError(f"{job.target} is the original and would be lost; choose another target")


def _same_file(target: str, source: str) -> bool:
    return os.path.exists(target) and os.path.exists(source) and os.path.samefile(target, source)


def _present(jobs: Sequence[Job], target: str) -> set[str]:
    """Which outputs are there."""
    if not is_remote(target):
        return {job.target for job in jobs if os.path.exists(job.target)}
    folder = target if len(jobs) > 1 or jobs[0].target != target else target.rpartition("/")[0]
    return {file.address for file in list_files(folder)} & {job.target for job in jobs}


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
