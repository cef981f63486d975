"""Zero-shot classification with CLIP (Radford et al., ICML 2021): how well prompts fit images. Needs open_clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rgsud_lib.errors import ConfigError

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class PromptClassifier:
    """The probability that one of the good prompts of a group fits best, averaged over the groups.

    `features` holds the prompts' unit vectors, groups x prompts x channels; `good` (prompts) says which of each
    group are good; `scale` multiplies the cosines before each group's softmax.
    """

    def __init__(self, tower: nn.Module, features: Tensor, good: Sequence[bool], scale: float, device: torch.device):
        self.tower = tower.eval().requires_grad_(False).to(device)
        self.features, self.good, self.scale, self.device = features, torch.tensor(good), scale, device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0,1], any device, to B probabilities, float32 on the CPU; bf16 inside on a GPU.

        Matrix products of another batch size may differ in the last bits: score image by image.
        """
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            seen = self.tower(normalised(images.to(self.device, torch.float32))).float().cpu()
            cosines = torch.einsum("bc,gpc->bgp", F.normalize(seen, dim=-1), self.features)
        return (self.scale * cosines).softmax(-1)[..., self.good].sum(-1).mean(-1)


def normalised(images: Tensor) -> Tensor:
    """B x 3 x H x W in [0,1] to what CLIP was trained on."""
    mean, deviation = (torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in (MEAN, DEVIATION))
    return (images - mean) / deviation


def build_clip(architecture: str) -> nn.Module:
    """open_clip's model of that name with random weights, on the CPU, ready for evaluation.

    Raises ConfigError where open_clip is not installed or does not know the name.
    """
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the scorers daclip and clip_iqa need open_clip_torch; install it or choose another scorer"
        ) from error
    settings = open_clip.get_model_config(architecture)
    if settings is None:
        raise ConfigError(f"open_clip {open_clip.__version__} knows no model {architecture!r}; install a newer one")
    return open_clip.CLIP(**settings).eval().requires_grad_(False)


@torch.no_grad()
def encode_prompts(clip: nn.Module, architecture: str, groups: Sequence[Sequence[str]]) -> Tensor:
    """Unit text features, groups x prompts x channels; all groups have the same number of prompts."""
    import open_clip

    tokens = open_clip.get_tokenizer(architecture)([prompt for group in groups for prompt in group])
    with torch.autocast("cpu", enabled=False):
        return clip.encode_text(tokens, normalize=True).unflatten(0, (len(groups), len(groups[0])))
