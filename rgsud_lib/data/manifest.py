"""What a prepared dataset holds (manifest.json) and how its pictures are read.

An image is named by its content, so one picture used in two roles is stored once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import ValidationError

from rgsud_lib.bundle import open_bundle
from rgsud_lib.config import Section
from rgsud_lib.data.phash import nearest
from rgsud_lib.errors import BundleError

Role = Literal["rainy", "clean", "paired_rainy", "paired_clean"]
Split = Literal["train", "validation", "evaluation"]
MANIFEST = "manifest.json"
CRITIC = "critic.safetensors"


class ImageRecord(Section):
    """One accepted image; `id` as by `content_id`, `source_digest` the SHA-256 of its file, sizes in pixels.

    `source_md5` is the file's MD5, which is what S3 calls the ETag of an object put in one piece.
    """

    id: str
    role: Role
    split: Split
    name: str
    source_digest: str
    source_md5: str = ""
    height: int
    width: int
    phash: str


class Pair(Section):
    """An evaluation pair: ids of its rainy and clean image, and the name both files share."""

    rainy: str
    clean: str
    name: str


class Quarantined(Section):
    """A file that is not used, and why. `id` where it was decoded and refused for its content."""

    name: str
    role: Role
    reason: str
    id: str | None = None


class Duplicate(Section):
    """A file left out because `kept` (same role) shows the same picture, `bits` of 256 apart."""

    name: str
    role: Role
    kept: str
    bits: int


class Manifest(Section):
    """All of a dataset. `scene_bits`: two images this near show the same scene.

    `retired`: images of the datasets before that this one has no more; what it starts from may have learnt from them.
    """

    images: tuple[ImageRecord, ...]
    pairs: tuple[Pair, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    warnings: tuple[str, ...] = ()
    scene_bits: int
    retired: tuple[ImageRecord, ...] = ()

    def select(self, role: Role, split: Split | None = None) -> list[ImageRecord]:
        """The records of one role (and split), in the manifest's order."""
        return [image for image in self.images if image.role == role and split in (None, image.split)]

    def all_records(self) -> tuple[ImageRecord, ...]:
        """The images, and those of the datasets before."""
        return (*self.images, *self.retired)

    def transductive(self) -> set[str]:
        """Ids of the evaluation's rainy images whose scene is among the rainy training images, or the retired ones.

        A score on them does not show how the model does on images it never saw.
        """
        tested, trained = self.select("paired_rainy"), self.select("rainy", "train")
        trained += [image for image in self.retired if image.split == "train"]
        if not tested or not trained:
            return set()
        _, apart = nearest([image.phash for image in tested], [image.phash for image in trained])
        return {image.id for image, distance in zip(tested, apart, strict=True) if distance <= self.scene_bits}


class Dataset:
    """An opened, verified dataset bundle with a cache of decoded images."""

    def __init__(self, folder: Path, manifest: Manifest, digest: str, cache_bytes: int):
        self.folder = folder
        self.manifest = manifest
        self.digest = digest
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._free = cache_bytes

    @classmethod
    def open(cls, folder: Path, cache_bytes: int = 2 * 1024**3) -> Dataset:
        """Raises BundleError: not a finished dataset bundle, altered, or an unreadable manifest."""
        folder = Path(folder)
        bundle = open_bundle(folder, kind="dataset")
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError(f"{folder / MANIFEST} cannot be used ({error}); run `rgsud prepare` again") from error
        return cls(folder, manifest, bundle.digest, cache_bytes)

    def select(self, role: Role, split: Split | None = None) -> list[ImageRecord]:
        return self.manifest.select(role, split)

    @property
    def critic(self) -> Path | None:
        """The critic that prepare trained on the clean images, None where it was not asked to."""
        path = self.folder / CRITIC
        return path if path.is_file() else None

    def images(self, role: Role, split: Split) -> Images:
        """All images of one role and split, in the manifest's order."""
        return Images(self.image, self.manifest.select(role, split))

    def image(self, id: str) -> np.ndarray:
        """The image as uint8 H x W x 3, read-only; the least recently used leave the cache when it is full."""
        if id in self._cache:
            self._cache.move_to_end(id)
            return self._cache[id]
        image = read_image(self.folder, id)
        self._cache[id] = image
        self._free -= image.nbytes
        while self._free < 0 and len(self._cache) > 1:
            self._free += self._cache.popitem(last=False)[1].nbytes
        return image


class Images(Sequence[np.ndarray]):
    """The images of some records, read when asked for: a scorer that fits on a hundred need not load thousands."""

    def __init__(self, load: Callable[[str], np.ndarray], records: Sequence[ImageRecord]) -> None:
        self._load, self._records = load, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._load(self._records[index].id)


def content_id(image: np.ndarray) -> str:
    """First 16 hex digits of the SHA-256 over height, width (8 bytes each) and RGB bytes."""
    height, width, _ = image.shape
    digest = hashlib.sha256(height.to_bytes(8, "big") + width.to_bytes(8, "big"))
    digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()[:16]


def image_path(folder: Path, id: str) -> Path:
    return folder / "images" / f"{id}.png"


def read_image(folder: Path, id: str) -> np.ndarray:
    """A stored image, uint8 H x W x 3, read-only. Raises BundleError: not in this dataset."""
    try:
        with Image.open(image_path(folder, id), formats=("PNG",)) as file:
            image = np.array(file.convert("RGB"))
    except OSError as error:
        raise BundleError(f"image {id!r} cannot be read from {folder} ({error}); run `rgsud prepare` again") from error
    image.flags.writeable = False
    return image
