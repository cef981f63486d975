"""A copy of a published set on disk or in S3: which splits it has, their pairs, and what each file looks like.

Pairs are matched as everywhere in this project, by `sources.match_pairs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from rgsud_lib.config import DataConfig
from rgsud_lib.data.decode import SUFFIXES, decode
from rgsud_lib.data.phash import phash
from rgsud_lib.data.published import PublishedSet, PublishedSplit
from rgsud_lib.data.reading import check_bytes, workers
from rgsud_lib.data.sources import CLEAN_FOLDERS, RAIN_FOLDERS, match_pairs
from rgsud_lib.errors import DataError
from rgsud_lib.storage.listing import SourceFile, list_files
from rgsud_lib.storage.s3 import is_remote

BLOCK = 1024  # files handed to the threads at a time
SPELLINGS = {
    "train": ("train", "training", "train_set"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing", "test_set"),
}


@dataclass(frozen=True)
class Look:
    """A file that was read: `size` is (width, height) in pixels; `fault` says what is wrong with it, if anything."""

    name: str
    size: tuple[int, int] = (0, 0)
    phash: str = ""
    fault: str = ""


@dataclass
class Part:
    """A split of the copy: its images, the matched pairs or why there are none, and the looks by address."""

    split: PublishedSplit
    files: list[SourceFile]
    pairs: list[tuple[str, SourceFile, SourceFile]] = field(default_factory=list)
    unmatched: str = ""
    looks: dict[str, Look] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        return "train" in self.split.folder

    def count(self) -> int:
        """Pairs, rainy images where they do not match, or images where there are no clean ones."""
        if not self.split.paired:
            return len(self.files)
        return len(self.pairs) or sum(file.name.split("/")[0].lower() in RAIN_FOLDERS for file in self.files)

    def scene(self) -> list[Look]:
        """The images that show the scenes best: the clean ones, or all where none are clean; broken ones left out."""
        clean = [file for file in self.files if file.name.split("/")[0].lower() in CLEAN_FOLDERS]
        chosen = clean if self.split.paired else self.files
        return [look for file in chosen if not (look := self.looks[file.address]).fault]

    def seen_pairs(self) -> Iterator[tuple[str, Look, Look]]:
        """Name, rainy and clean look of every pair of which both can be read."""
        for name, rain, clean in self.pairs:
            first, second = self.looks[rain.address], self.looks[clean.address]
            if not first.fault and not second.fault:
                yield name, first, second

    def read(self, config: DataConfig) -> None:
        """Fill `looks`."""
        looks = look_at(config, self.files, f"reading {self.split.folder}")
        self.looks = {file.address: look for file, look in zip(self.files, looks, strict=True)}


def open_copy(published: PublishedSet, location: str) -> list[Part]:
    """The splits that a folder or s3:// prefix has, listed and matched; no image is read yet.

    Without folders of splits it is taken for one split: the one that it is named after, else the last.
    Raises DataError: nothing there, or not laid out as `published.layout()`; the message has that layout.
    """
    if not is_remote(location) and not Path(location).expanduser().is_dir():
        raise published.absent(location, "no such folder")
    images = [file for file in list_files(location) if file.name.lower().endswith(SUFFIXES)]
    if not images:
        raise published.absent(location, "no images")
    parts = [Part(split, files) for split, files in _splits(published, location, images).items()]
    for part in parts:
        if part.split.paired:
            try:
                part.pairs = match_pairs(f"{location.rstrip('/')} ({part.split.folder})", part.files)
            except DataError as error:
                part.unmatched = str(error)
    return parts


def look_at(config: DataConfig, files: Sequence[SourceFile], title: str) -> list[Look]:
    """Read every file, in threads, with a progress bar on a terminal; the looks are in the files' order."""

    def look(file: SourceFile) -> Look:
        name = "/".join(PurePosixPath(file.address).parts[-2:])
        try:
            check_bytes(config, file)
            image = decode(file.read(), config.max_pixels)
        except DataError as error:
            return Look(name, fault=str(error))
        return Look(name, (image.shape[1], image.shape[0]), phash(image))

    looks = []
    with ThreadPoolExecutor(workers()) as pool, tqdm(total=len(files), desc=title, unit="image", disable=None) as bar:
        for start in range(0, len(files), BLOCK):  # not all at once: SPA-Data has a million files
            for seen in pool.map(look, files[start : start + BLOCK]):
                looks.append(seen)
                bar.update()
    return looks


def _splits(published: PublishedSet, location: str, images: list[SourceFile]) -> dict[PublishedSplit, list[SourceFile]]:
    """The images of each split that is there, named below their split's folder."""
    if not published.splits[0].paired:
        return {published.splits[0]: images}
    found: dict[PublishedSplit, list[SourceFile]] = {}
    for split in published.splits:
        depth = split.folder.count("/") + 1
        inside = [file for file in images if _names(split, file.name.split("/")[:depth])]
        if inside:
            found[split] = [replace(file, name="/".join(file.name.split("/")[depth:])) for file in inside]
    if found:
        return found
    folders = sorted({file.name.split("/")[0] for file in images})
    if not any(folder.lower() in RAIN_FOLDERS for folder in folders):
        shown = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
        raise published.absent(location, f"{len(images)} images, and at the top {shown}")
    ends = location.rstrip("/").split("/")
    named = [split for split in published.splits if _names(split, ends[-split.folder.count("/") - 1 :])]
    return {(named or [published.splits[-1]])[0]: images}


def _names(split: PublishedSplit, parts: Sequence[str]) -> bool:
    wanted = split.folder.split("/")
    return len(parts) == len(wanted) and all(
        part.lower() in SPELLINGS.get(name, (name,)) for part, name in zip(parts, wanted, strict=True)
    )
