"""Model files, and the project's only tile and blend path: evaluation, rewards and the command line share it.

Tiles are read, derained and blended one at a time and finished rows leave at once, so memory is
bounded by one tile and one strip of tiles, whatever the image's size.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rgsud_lib.config import DataConfig, DerainerConfig
from rgsud_lib.data.decode import SUFFIXES, decode
from rgsud_lib.data.images import check_images, to_tensor, to_uint8
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.files import write_bytes

FORMAT = "rgsud-derainer-1"
FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk fails all images alike
METADATA = "rgsud"


class Mirrored(nn.Module):
    """A derainer's mean over an image and, mirrored back, its mirror image: twice the time, a little better."""

    def __init__(self, derainer: nn.Module):
        super().__init__()
        self.derainer = derainer

    def forward(self, images: Tensor) -> Tensor:
        return (self.derainer(images) + self.derainer(images.flip(-1)).flip(-1)) / 2


def derain(model: nn.Module, rainy: Tensor, tile: int, overlap: int) -> Tensor:
    """Derain a batch, B x 3 x H x W in [0,1]; the result has its shape and device and is clamped to [0,1].

    Whole where both sides are at most `tile` pixels, else in tiles whose linear ramps over at least
    `overlap` pixels add up to one. A network with global pooling (NAFNet's channel attention) sees
    each tile's own mean, so tiled and whole results differ slightly (`benchmarks/inference.py`
    states by how much); where that matters, choose the tile as large as memory allows: from one
    tile on, the result is the whole image's. Raises ConfigError where 2 * overlap >= tile.
    """
    check_images(rainy, "rainy")

    def read(rows: slice, columns: slice) -> Tensor:
        return rainy[..., rows, columns]

    strips = [strip.to(rainy.device) for _, strip in _strips(model, read, *rainy.shape[-2:], tile, overlap)]
    return torch.cat(strips, dim=-2).clamp_(0, 1)


def derain_image(
    model: nn.Module, image: np.ndarray, tile: int, overlap: int, advance: Callable[[float], object] | None = None
) -> np.ndarray:
    """`derain` for one uint8 H x W x 3 image: only a tile and a strip of tiles exist in floating point.

    `advance` is told the share of the image that was finished, strip by strip.
    """
    result = np.empty_like(image)

    def read(rows: slice, columns: slice) -> Tensor:
        return to_tensor(image[rows, columns])

    for top, strip in _strips(model, read, *image.shape[:2], tile, overlap):
        result[top : top + strip.shape[-2]] = to_uint8(strip)[0]
        if advance is not None:
            advance(strip.shape[-2] / image.shape[0])
    return result


@torch.no_grad()
def _strips(
    model: nn.Module, read: Callable[[slice, slice], Tensor], height: int, width: int, tile: int, overlap: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, finished rows B x 3 x rows x width) from top to bottom."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    bands, columns = _axis_tiles(height, tile, overlap), _axis_tiles(width, tile, overlap)
    ends = [top for top, _ in bands[1:]] + [height]
    unfinished: Tensor | None = None
    for (top, row_weights), end in zip(bands, ends, strict=True):
        strip: Tensor | None = None
        for left, column_weights in columns:
            crop = read(slice(top, top + len(row_weights)), slice(left, left + len(column_weights)))
            output = model(crop.to(device, memory_format=torch.channels_last)).float()  # faster, also on CPUs
            if strip is None:
                strip = output.new_zeros(*output.shape[:2], len(row_weights), width)
            weights = (row_weights[:, None] * column_weights).to(device)
            strip[..., left : left + len(column_weights)] += output * weights
        if unfinished is not None:
            strip[..., : unfinished.shape[-2], :] += unfinished
        yield top, strip[..., : end - top, :]
        unfinished = strip[..., end - top :, :].clone()


def _axis_tiles(length: int, tile: int, overlap: int) -> list[tuple[int, Tensor]]:
    """Evenly spread tiles along one axis: (start, weights), the weights of all tiles adding up to 1 everywhere."""
    if not 0 <= 2 * overlap < tile:
        raise ConfigError(f"tile {tile} with overlap {overlap}: the overlap must be less than half of the tile")
    if length <= tile:
        return [(0, torch.ones(length))]
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    ramp = torch.arange(1, tile + 1).div(overlap + 1).clamp(max=1)
    windows = [torch.minimum(ramp if start else torch.ones(tile), ramp.flip(0)) for start in starts[:-1]] + [ramp]
    total = torch.zeros(length)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile] += window
    return [(start, window / total[start : start + tile]) for start, window in zip(starts, windows, strict=True)]


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


def weights_digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes of a state dictionary, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_derainer(derainer: nn.Module, config: DerainerConfig, path: Path, facts: dict[str, str] | None = None) -> None:
    """Write weights and architecture as one safetensors file, atomically; `facts` join the metadata."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in derainer.state_dict().items()}
    metadata = {
        **(facts or {}),
        "format": FORMAT,
        "derainer": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "weights_digest": weights_digest(weights),
    }
    # One key: safetensors writes several in random order, and equal models must be equal files.
    write_bytes(Path(path), save(weights, {METADATA: json.dumps(metadata, sort_keys=True)}))


def load_derainer(path: Path | str, device: str | torch.device = "cpu") -> nn.Module:
    """The derainer of a `.safetensors` file, a stage's or an export folder, or a whole work folder; in eval mode.

    Raises BundleError: nothing there, not a model of this project, altered bytes, weights of another architecture.
    """
    from rgsud_lib.networks import build_derainer

    file = find_model(Path(path))
    weights, metadata = _read_weights(file)
    if metadata.get("format") != FORMAT:
        found = metadata.get("format")
        raise BundleError(f"{file} has format {found!r}, expected {FORMAT!r}; give a model that `rgsud export` wrote")
    if weights_digest(weights) != metadata.get("weights_digest"):
        raise BundleError(f"{file} was altered after it was written (its weights' digest differs); export it again")
    try:
        model = build_derainer(DerainerConfig.model_validate_json(metadata.get("derainer", "")))
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{file}: weights do not fit the architecture it names ({reason}); export it again") from None
    return model.to(device).eval()


def find_model(path: Path) -> Path:
    """The model file meant by a file, stage folder, export folder or work folder. Raises BundleError."""
    if path.is_file():
        return path
    for folder in (path, path / "export"):
        if (folder / "derainer.safetensors").is_file():
            return folder / "derainer.safetensors"
        found = sorted(folder.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found)
            raise BundleError(f"{folder} holds several models ({names}); name one of these files")
    raise BundleError(f"no model at {path}: expected a .safetensors file, or a folder with one in it or in its export/")


def _read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dictionary)
            return weights, json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise BundleError(f"{file} is not a readable safetensors file ({error}); copy or export it again") from None
