"""The trained derainer at work: model files, tiles, pictures and folders."""

from rgsud_lib.inference.derainer import Derainer
from rgsud_lib.inference.model_file import find_model, load_derainer, save_derainer, weights_digest
from rgsud_lib.inference.tiles import Mirrored, derain, derain_image

__all__ = [
    "Derainer",
    "Mirrored",
    "derain",
    "derain_image",
    "find_model",
    "load_derainer",
    "save_derainer",
    "weights_digest",
]
