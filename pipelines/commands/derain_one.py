"""`rgsud derain-one`: derain a photograph for which there is no training set and no model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer


def derain_one(
    image: Annotated[Path, typer.Argument(help="a photograph with rain")],
    out: Annotated[Path, typer.Argument(help="the file to write; its suffix is the format")],
    episodes: Annotated[
        int, typer.Option(min=0, help="of learning on the photograph; 0: where the agents start")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same image")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is there already")] = False,
) -> None:
    """Learn on one photograph how to derain it (SRL-Derain): no training set, about a minute at 480 x 320.

    A trained model is better wherever there is one: `rgsud derain`.

    \b
    rgsud derain-one rain.jpg derained.png
    """
    _check(image, out, overwrite)
    from PIL import Image
    from tqdm import tqdm

    from rgsud_lib.config import DataConfig
    from rgsud_lib.config.methods import SrlDerainConfig
    from rgsud_lib.data.decode import decode
    from rgsud_lib.data.images import to_tensor, to_uint8
    from rgsud_lib.files import write_bytes
    from rgsud_lib.methods.srl_derain import derain_one as learn

    rainy = to_tensor(decode(image.read_bytes(), DataConfig().max_pixels))
    layout = "derain {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1, disable=None, bar_format=layout) as progress:
        derained = learn(rainy, SrlDerainConfig(episodes=episodes), seed, progress.update)
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(derained)[0]).save(buffer, Image.registered_extensions()[out.suffix.lower()], quality=95)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, buffer.getvalue())
    typer.echo(f"{out} (no rain was found: the photograph as it is)" if derained.equal(rainy) else out)


def _check(image: Path, out: Path, overwrite: bool) -> None:
    """Raises DataError, before any work: no such file, an unknown format, a target that exists."""
    from rgsud_lib.data.decode import SUFFIXES
    from rgsud_lib.errors import DataError

    if not image.is_file():
        raise DataError(f"{image} is no file; give one photograph (a folder of them: rgsud derain, with a model)")
    if out.suffix.lower() not in SUFFIXES:
        raise DataError(f"{out}: its suffix names no picture format; use one of {', '.join(SUFFIXES)}")
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists; choose another target, or add --overwrite")
