"""DACLIP-IQA: how unlikely it is that an image shows rain, by the words of DA-CLIP.

DA-CLIP (Luo et al., ICLR 2024) trains a controller beside CLIP's image tower that says which of ten degradations
an image has. The paper uses it as its reward without giving prompts: 1 - p(rainy) over all ten words and the mean
over crops are ours. It has no word for a clean image, and rain finer than a resize to 224 keeps is lost: hence
crops at native resolution.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rgsud_lib.config import DaclipConfig, digest_of
from rgsud_lib.data.images import check_images
from rgsud_lib.rewards.clip_prompts import PromptClassifier, build_clip, encode_prompts
from rgsud_lib.rewards.weights import Weights, read_weights

SCALE = 100.0  # of the cosines; DA-CLIP's own examples and CLIP's trained value
STRIDES = 0.7548776662466927, 0.5698402909980532  # 1/p and 1/p^2 with p^3 = p + 1: points spread evenly for any number


class Daclip:
    """Scorer in [0,1], higher is better: 1 - the probability of the words that count against an image.

    Given pairs of prompts, the mean probability of the good ones. The words are compared with the controller's
    feature, the only one trained on them; pairs with the feature of DA-CLIP's plain image tower, as in CLIP-IQA:
    the controller knows nothing but degradation words, and the tower it steers is trained to overlook degradations.
    """

    name = "daclip"
    higher_is_better = True

    def __init__(self, classifier: PromptClassifier, side: int, crops: int, version: str):
        self.classifier, self.side, self.crops, self.version = classifier, side, crops, version

    @classmethod
    def load(cls, config: DaclipConfig, device: torch.device | str) -> Daclip:
        """Read the checkpoint and encode the prompts once.

        Raises BundleError (checkpoint absent, altered or of another layout) and ConfigError (no open_clip).
        """
        weights = read_weights(config.checkpoint, config.sha256, "scorers.daclip.checkpoint")
        clip, controller = load_towers(weights, config.architecture)
        groups = config.pairs or (config.words,)
        good = (True, False) if config.pairs else [word not in config.degradations for word in config.words]
        features = encode_prompts(clip, config.architecture, groups)
        tower = clip.visual if config.pairs else controller
        settings = config.model_dump(mode="json", exclude={"checkpoint", "sha256"})
        version = digest_of({"name": cls.name, "revision": 1, "weights": weights.sha256, **settings})
        classifier = PromptClassifier(tower, features, good, SCALE, torch.device(device))
        return cls(classifier, clip.visual.image_size[0], config.crops, version)

    def __call__(self, output: Tensor, rainy: Tensor | None = None) -> Tensor:
        """B x 3 x H x W in [0,1] to B scores; `rainy` is not looked at. Raises ValueError on bad images."""
        images = check_images(output, "output").detach().to(self.classifier.device, torch.float32).split(1)
        return torch.stack([self.classifier(views(image, self.side, self.crops)).mean() for image in images])


def views(image: Tensor, side: int, crops: int) -> Tensor:
    """1 x 3 x H x W to (crops + 1) x 3 x side x side: crops, the first in the middle, then the whole image squeezed.

    An image with a shorter side below `side` is enlarged to it before it is cropped.
    """
    whole = _resize(image, side, side)
    height, width = image.shape[-2:]
    if min(height, width) < side:
        enlarge = side / min(height, width)
        height, width = round(height * enlarge), round(width * enlarge)
        image = _resize(image, height, width)
    shares = [[(0.5 + index * stride) % 1 for stride in STRIDES] for index in range(crops)]
    starts = [(round((height - side) * down), round((width - side) * across)) for down, across in shares]
    return torch.cat([*(image[..., top : top + side, left : left + side] for top, left in starts), whole])


def load_towers(weights: Weights, architecture: str) -> tuple[nn.Module, nn.Module]:
    """CLIP and the controller, a second image tower, from a DA-CLIP checkpoint.

    The second copy of the image tower, the outer `logit_scale` and the controller's outputs into CLIP's layers
    (`zero_modules`) must be there but are not used. Raises BundleError for any other layout.
    """
    clip = build_clip(architecture)
    weights.check(checkpoint_shapes(clip))
    controller = copy.deepcopy(clip.visual)
    clip.load_state_dict({key: weights.tensors[f"clip.{key}"] for key in clip.state_dict()})
    controller.load_state_dict({key: weights.tensors[_control_key(key)] for key in controller.state_dict()})
    return clip, controller


def checkpoint_shapes(clip: nn.Module) -> dict[str, tuple[int, ...]]:
    """Every key of a DA-CLIP checkpoint over that CLIP, with its shape: 631 for ViT-B/32."""
    shapes = {f"clip.{key}": tuple(value.shape) for key, value in clip.state_dict().items()}
    for key, value in clip.visual.state_dict().items():
        shapes[f"visual.{key}"] = shapes[_control_key(key)] = tuple(value.shape)
    width = clip.visual.transformer.width
    for layer in range(clip.visual.transformer.layers):
        shapes[f"visual_control.transformer.zero_modules.{layer}.weight"] = (width, width)
        shapes[f"visual_control.transformer.zero_modules.{layer}.bias"] = (width,)
    return shapes | {"logit_scale": ()}


def _control_key(key: str) -> str:
    """DA-CLIP wraps the controller's transformer in a module of its own."""
    return "visual_control." + key.replace("transformer.", "transformer.transformer.", 1)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
