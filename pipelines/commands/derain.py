"""`rgsud derain`: photographs and videos without their rain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rgsud_lib.inference.derainer import Derainer

RUNS = "rgsud-runs"


def derain(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="image, video, folder, glob, s3://")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="file or folder, s3:// too")],
    model: Annotated[
        str | None,
        typer.Option(
            help="models:/rgsud@champion, runs:/ID, a .safetensors or .onnx file, a stage's folder or a workdir "
            "(s3:// too); default: the workdir's"
        ),
    ] = None,
    picture_format: Annotated[
        str | None, typer.Option("--format", help="png, jpg, webp, tiff or bmp; default: each file's own")
    ] = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="0: the picture as it is, 1: derained")] = 1.0,
    compare: Annotated[bool, typer.Option("--compare", help="write before and after, side by side")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="videos: less flicker, slower")] = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="average with the mirror image: slower, better")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="pass over outputs that are there")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="make outputs again that are there")] = False,
    tile: Annotated[
        str, typer.Option(help="side in pixels of the tiles that large images are done in; auto: by free memory")
    ] = "auto",
    overlap: Annotated[int, typer.Option(help="over which neighbouring tiles are blended, in pixels")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: a GPU where there is one")] = None,
    workdir: Annotated[
        str, typer.Option(help="of the runs, where neither --model nor MLFLOW_TRACKING_URI says")
    ] = RUNS,
) -> None:
    """Remove the rain from photographs and videos.

    Exit code 1: some files could not be derained, the others were.

    \b
    rgsud derain rainy.jpg clean.png
    rgsud derain my/rain derained --resume                       a folder and all below it
    rgsud derain "my/**/*.jpg" derained --model models:/rgsud@champion
    rgsud derain drive.mp4 derained.mp4 --smooth
    rgsud derain s3://bucket/rain s3://bucket/derained --format png
    """
    from rgsud_lib.errors import ConfigError
    from rgsud_lib.inference.jobs import plan
    from rgsud_lib.inference.pictures import FORMATS

    if picture_format is not None and f".{picture_format}" not in FORMATS:
        raise ConfigError(f"--format {picture_format}: choose one of {', '.join(name[1:] for name in FORMATS)}")
    if resume and overwrite:
        raise ConfigError("--resume keeps what is there and --overwrite replaces it: give one of them")
    existing = "skip" if resume else "replace" if overwrite else "refuse"
    jobs, skipped = plan(sources, target, picture_format, existing)
    if not jobs:
        typer.echo(f"nothing to do: all {skipped} outputs are there", err=True)
        return
    from rgsud_lib.inference.derainer import Derainer
    from rgsud_lib.inference.folders import Worker

    derainer = Derainer.load(model, device, tile, overlap, mirror, workdir=workdir)
    typer.echo(_settings(derainer, tile), err=True)
    worker = Worker(derainer, strength, compare, smooth)
    layout = "derain {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    from tqdm import tqdm

    with tqdm(total=len(jobs), disable=None, bar_format=layout) as progress:
        for number, written in enumerate(worker.run(jobs, progress.update), 1):
            progress.update(number - progress.n)
            if written:
                progress.write(written)
    _summary(len(jobs), skipped, worker.failures)


def _settings(derainer: Derainer, tile: str) -> str:
    """One line that makes the result repeatable on another machine."""
    chosen = f"--tile {derainer.tile}" + (" (as memory allows)" if tile == "auto" else "")
    half = "half precision" if derainer.half else "full precision"
    return f"{chosen} --overlap {derainer.overlap} --device {derainer.device}, {half}"


def _summary(total: int, skipped: int, failures: dict[str, str]) -> None:
    there = f", {skipped} were there" if skipped else ""
    typer.echo(f"{total - len(failures)} of {total} derained{there}", err=True)
    if failures:
        listed = "\n".join(f"  {address}: {reason}" for address, reason in failures.items())
        typer.echo(f"failed ({len(failures)}):\n{listed}", err=True)
        raise typer.Exit(1)
