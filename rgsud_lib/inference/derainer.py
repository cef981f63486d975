"""`Derainer`: the trained model for whoever has a picture, as PIL image, NumPy array or tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rgsud_lib.data.images import check_images
from rgsud_lib.errors import ConfigError
from rgsud_lib.inference import memory
from rgsud_lib.inference.address import RUNS, local_model
from rgsud_lib.inference.model_file import load_derainer
from rgsud_lib.inference.tiles import Mirrored, derain, derain_image

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)
_PIL_KINDS = ("RGB", "RGBA", "L", "LA", "I;16")


class Derainer:
    """A network that removes rain, ready for pictures of any size. Calls do not change it: threads may share it.

    `tile` "auto" is the largest of `memory.TILES` that takes half of the free memory, `half` computes in half
    precision (by default on a GPU, where rounding is below an 8-bit level).
    """

    def __init__(
        self, network: nn.Module, device: str | torch.device, tile: int | str = "auto", overlap: int = 32,
        half: bool | None = None,
    ):  # fmt: skip
        self.network = network.to(device).eval()
        self.device = torch.device(device)
        self.half = self.device.type == "cuda" if half is None else half
        per_pixel = memory.bytes_per_pixel(self.network, self.device)
        self.tile = _checked_tile(tile, overlap) or memory.choose_tile(per_pixel, memory.available_memory(self.device))
        self.overlap = overlap
        self.batch = memory.choose_batch(per_pixel, self.tile, self.device)

    @classmethod
    def load(
        cls, model: str | Path | None = None, device: str | torch.device | None = None, tile: int | str = "auto",
        overlap: int = 32, mirror: bool = False, half: bool | None = None, workdir: str | Path = RUNS,
    ) -> Derainer:  # fmt: skip
        """The model of a `.safetensors` or `.onnx` file, a workdir or a stage's folder (s3:// too), of a registry
        alias (`models:/rgsud@champion`) or of a run (`runs:/ID`); without `model`, of the workdir.

        `device` is a GPU where there is one. `mirror` averages with the mirror image: twice the time, a little better.
        Raises BundleError or RegistryError where there is no such model, ConfigError where the tile is out of range.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        network = load_derainer(local_model(model, workdir), device)
        return cls(Mirrored(network) if mirror else network, device, tile, overlap, half)

    def __call__(self, image: Picture, strength: float = 1.0) -> Picture:
        """The picture without rain, of the same kind, type, size and, where it has one, alpha channel.

        PIL image; array H x W (grey), H x W x 1, 2 (grey, alpha), 3 or 4 (alpha last), of uint8, uint16 or floats in
        [0,1]; float tensor 3 x H x W or B x 3 x H x W in [0,1]. `strength` blends from the picture, 0, to the
        derained one, 1. Palettes and CMYK come back as RGB. Raises TypeError or ValueError on any other picture,
        ConfigError on any other strength.
        """
        if isinstance(image, Image.Image):
            return self._pil(image, strength)
        if isinstance(image, Tensor):
            return self._tensor(image, strength)
        if isinstance(image, np.ndarray):
            return self._array(image, strength)
        kind = type(image).__name__
        raise TypeError(f"image is {kind}; expected a PIL image, a NumPy array or a tensor: open files with PIL first")

    def rgb(
        self, image: np.ndarray, strength: float = 1.0, advance: Callable[[float], object] | None = None
    ) -> np.ndarray:
        """`derain_image` with this model's tiles, precision and device: H x W x 3, or B x H x W x 3."""
        with self._precision():
            return derain_image(self.network, image, self.tile, self.overlap, advance, _checked_strength(strength))

    def samples(
        self, image: np.ndarray, strength: float = 1.0, advance: Callable[[float], object] | None = None
    ) -> np.ndarray:
        """`rgb` for H x W x C or B x H x W x C: 1 channel (grey), 3, or one more, the alpha, which is kept."""
        channels = image.shape[-1]
        colour = image[..., : channels - 1 + channels % 2]
        if channels < 3:
            grey = self.rgb(np.repeat(colour, 3, axis=-1), strength, advance).astype(np.float32) @ LUMA
            result = (np.rint(grey) if image.dtype.kind == "u" else grey).astype(image.dtype)[..., None]
        else:
            result = self.rgb(colour, strength, advance)
        return np.concatenate([result, image[..., colour.shape[-1] :]], axis=-1)

    def _array(self, image: np.ndarray, strength: float) -> np.ndarray:
        _check_array(image)
        return self.samples(image[..., None] if image.ndim == 2 else image, strength).reshape(image.shape)

    def _pil(self, image: Image.Image, strength: float) -> Image.Image:
        if image.mode not in _PIL_KINDS:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        result = Image.fromarray(self._array(np.asarray(image), strength))
        result.info = dict(image.info)
        return result

    def _tensor(self, image: Tensor, strength: float) -> Tensor:
        batch = image.detach()[None] if image.ndim == 3 else image.detach()
        rainy = check_images(batch, "image").float()
        with self._precision():
            derained = derain(self.network, rainy, self.tile, self.overlap)
        return torch.lerp(rainy, derained, _checked_strength(strength)).to(image.dtype).reshape(image.shape)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.float16, enabled=self.half)


def _check_array(image: np.ndarray) -> None:
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise TypeError(f"image has samples of {image.dtype}; expected uint8, uint16 or floats in [0,1]")
    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.ndim not in (2, 3) or not 1 <= channels <= 4 or 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}; expected H x W, or H x W x 1, 2, 3 or 4 with the alpha last")
    if image.dtype.kind == "f" and not (image.min() >= -1e-3 and image.max() <= 1 + 1e-3):
        found = f"[{image.min():.4g}, {image.max():.4g}]"
        raise ValueError(f"image spans {found}; expected finite values in [0,1]: divide by 255, or give uint8")


def _checked_tile(tile: int | str, overlap: int) -> int | None:
    """None for "auto"."""
    if tile == "auto":
        return None
    try:
        side = int(tile)
    except ValueError:
        raise ConfigError(f"tile={tile!r}: expected auto or a number of pixels, such as 512") from None
    if not 0 <= 2 * overlap < side:
        raise ConfigError(f"tile {side} with overlap {overlap}: the overlap must be less than half of the tile")
    return side


def _checked_strength(strength: float) -> float:
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength={strength:g}: expected 0 (the picture as it is) to 1 (derained)")
    return strength
