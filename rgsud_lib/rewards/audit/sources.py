"""Where an image's candidates come from: models, whose outputs are computed once, and folders of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torch import nn
from tqdm import tqdm

from rgsud_lib.bundle import MARKER
from rgsud_lib.config import digest_of
from rgsud_lib.data.manifest import CRITIC, Pair, read_image
from rgsud_lib.data.sources import list_images, published_key
from rgsud_lib.errors import ConfigError, DataError
from rgsud_lib.files import write_png
from rgsud_lib.inference import derain_image, find_model, load_derainer, weights_digest
from rgsud_lib.rewards.audit.state import INPUT, Audit, Source
from rgsud_lib.storage.listing import SourceFile


def find_checkpoints(path: Path) -> list[Path]:
    """The model files of a workdir's finished stages in the order they were made, else the one `find_model` finds."""
    stages = sorted(path.glob("stages/*/bundle.json"), key=lambda marker: marker.stat().st_mtime)
    names = ("warm_start.safetensors", "derainer.safetensors")
    found = [file for marker in stages for name in names if (file := marker.with_name(name)).is_file()]
    return found or [find_model(path)]


def find_critic(workdirs: Sequence[Path]) -> Path | None:
    """The newest critic that `prepare` left in one of these workdirs."""
    found = (
        path for workdir in workdirs for path in workdir.glob(f"stages/*/{CRITIC}") if (path.parent / MARKER).is_file()
    )
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def read_candidates(audit: Audit, folders: Sequence[str]) -> None:
    """Add folders of outputs as sources. Raises DataError: outputs missing, undecodable, of another size."""
    for folder in folders:
        files: dict[str, SourceFile] = {}
        for file in list_images(folder, "candidates", audit.warnings):
            stem = PurePosixPath(file.name).with_suffix("")
            files |= {published_key(stem): file, str(stem): file}
        missing = [pair.name for pair in audit.pairs if pair.name not in files]
        if missing:
            what = f"candidates folder {folder} lacks {len(missing)} of {len(audit.pairs)} images, such as {missing[0]}"
            raise DataError(f"{what}; every pair needs an output of the same name")
        outputs = {pair.rainy: files[pair.name] for pair in audit.pairs}
        audit.sources.append(Source(_unique(Path(folder).name, audit.sources), folder, outputs))
        for pair in audit.pairs:
            found = audit.output(pair, len(audit.sources) - 1).shape
            expected = read_image(audit.cache, pair.rainy).shape
            if found != expected:
                sizes = f"{found[1]}x{found[0]} pixels, its pair {expected[1]}x{expected[0]}"
                raise DataError(f"{files[pair.name].address} has {sizes}; outputs must show the same pixels")


def derain_pairs(audit: Audit, files: Sequence[Path]) -> None:
    """Add models as sources, before the folders. Raises ConfigError: fewer than two different sources in all."""
    found: list[Source] = []
    seen: dict[str, Path] = {}
    (audit.cache / "outputs").mkdir(exist_ok=True)
    with tqdm(total=len(files) * len(audit.pairs), desc="derain", unit="image", disable=None) as progress:
        for file in files:
            model = load_derainer(file, audit.device)
            weights = weights_digest(model.state_dict())
            if weights in seen:
                audit.warnings.append(f"{file} holds the same weights as {seen[weights]} and is left out.")
                continue
            seen[weights] = file
            outputs: dict[str, SourceFile] = {}
            for pair in audit.pairs:
                outputs[pair.rainy] = _derained(audit, model, weights, pair)
                progress.update()
            folder = file.resolve().parent.name
            name = {"derainer": folder, "warm_start": f"{folder}/warm_start"}.get(file.stem, file.stem)
            found.append(Source(_unique(name, [*audit.sources, *found]), str(file), outputs))
    audit.sources[:0] = found
    if len(audit.sources) < 2:
        raise too_few(len(audit.sources))


def too_few(count: int) -> ConfigError:
    """The error of an audit with fewer than two sources."""
    fix = "give more with --checkpoints (a workdir gives all its stages' models) or --candidates"
    return ConfigError(f"{count} different sources of outputs, a ranking needs at least 2; {fix}")


def _derained(audit: Audit, model: nn.Module, weights: str, pair: Pair) -> SourceFile:
    """The model's output, computed once; it lies under the digest of weights, tiling and rainy image."""
    config = audit.config.evaluation
    key = digest_of([weights, config.tile, config.overlap, pair.rainy])
    path = audit.cache / "outputs" / f"{key}.png"
    if not path.exists():
        write_png(path, derain_image(model, read_image(audit.cache, pair.rainy), config.tile, config.overlap))
    return SourceFile(path.name, str(path), path.stat().st_size)


def _unique(name: str, others: Sequence[Source]) -> str:
    taken = {INPUT, *(source.name for source in others)}
    names = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)
