"""One image, or a folder of them, derained into files."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rgsud_lib.config import DataConfig
from rgsud_lib.data.decode import SUFFIXES, decode
from rgsud_lib.errors import DataError
from rgsud_lib.files import write_bytes
from rgsud_lib.inference.model_file import load_derainer
from rgsud_lib.inference.tiles import Mirrored, derain_image

FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk fails all images alike


def derain_path(
    source: Path,
    target: Path,
    model: Path | str,
    tile: int = 512,
    overlap: int = 32,
    overwrite: bool = False,
    mirror: bool = False,
) -> list[Path]:
    """Derain one image, or all below a folder (the structure is kept), with the model `load_derainer` finds.

    One image goes to the file `target` names (its suffix is the format), all else into the folder
    `target` as 8-bit PNG; `mirror` derains with `Mirrored`. Returns the files written. Raises DataError:
    nothing to do, a target that exists (nothing is written then), or, once all others are done, images that
    cannot be read.
    """
    from tqdm import tqdm

    jobs = _plan(Path(source), Path(target), overwrite)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    derainer = load_derainer(model, device)
    derainer = Mirrored(derainer) if mirror else derainer
    failures: list[str] = []
    layout = "derain {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=len(jobs), disable=None, bar_format=layout) as progress:
        for number, (file, output) in enumerate(jobs, 1):
            try:
                image = decode(file.read_bytes(), DataConfig().max_pixels)
                _write_image(output, derain_image(derainer, image, tile, overlap, progress.update))
            except (DataError, OSError) as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                failures.append(f"{file}: {error}")
            progress.update(number - progress.n)
    if failures:
        listed = "\n".join(failures)
        raise DataError(f"{len(failures)} of {len(jobs)} images could not be derained, the others were:\n{listed}")
    return [output for _, output in jobs]


def _plan(source: Path, target: Path, overwrite: bool) -> list[tuple[Path, Path]]:
    """(input, output) of each image; everything that can be refused is refused before any work is done."""
    if source.is_file():
        named = target.suffix.lower() in SUFFIXES and not target.is_dir()
        jobs = [(source, target if named else target / f"{source.stem}.png")]
    elif source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        jobs = [(file, target / file.relative_to(source).with_suffix(".png")) for file in files]
    else:
        raise DataError(f"{source} does not exist; give an image or a folder of images")
    if not jobs:
        raise DataError(f"{source} holds no images ({', '.join(SUFFIXES)})")
    origins: dict[Path, Path] = {}
    for file, output in jobs:
        if origins.setdefault(output, file) != file:
            raise DataError(f"{origins[output]} and {file} would both become {output}; rename one of them")
    present = [output for _, output in jobs if output.exists()]
    if present and not overwrite:
        raise DataError(f"{present[0]} exists ({len(present)} such files); choose another target or allow overwriting")
    return jobs


def _write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, Image.registered_extensions()[path.suffix.lower()], quality=95)
    write_bytes(path, buffer.getvalue())
