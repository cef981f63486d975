"""CLIP-IQA: does 'Good photo.' or 'Bad photo.' fit an image better (Wang, Chan, Loy, AAAI 2023).

CLIP's RN50 without positional embedding, so that the whole image is seen at its own resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rgsud_lib.config import ClipIqaConfig, digest_of
from rgsud_lib.data.images import check_images
from rgsud_lib.errors import DataError
from rgsud_lib.rewards.clip_prompts import PromptClassifier, build_clip, encode_prompts
from rgsud_lib.rewards.weights import read_weights

ARCHITECTURE = "RN50-quickgelu"  # OpenAI's text tower was trained with the quick GELU
OPENAI = "hf://timm/resnet50_clip.openai/open_clip_model.safetensors"  # where open_clip's tag `openai` leads
SMALLEST = 32  # pixels that become one position of the last layer


class ClipIqa:
    """Scorer in [0,1], higher is better: the probability of the good prompt, averaged over the pairs."""

    name = "clip_iqa"
    higher_is_better = True

    def __init__(self, classifier: PromptClassifier, version: str):
        self.classifier, self.version = classifier, version

    @classmethod
    def load(cls, config: ClipIqaConfig, device: torch.device | str, architecture: str = ARCHITECTURE) -> ClipIqa:
        """Read the checkpoint and encode the prompts once.

        Raises BundleError (checkpoint absent, altered or of another layout) and ConfigError (no open_clip).
        """
        address = OPENAI if config.checkpoint == "openai" else config.checkpoint
        weights = read_weights(address, config.sha256, "scorers.clip_iqa.checkpoint")
        clip = build_clip(architecture)
        weights.check({key: tuple(value.shape) for key, value in clip.state_dict().items()})
        clip.load_state_dict(weights.tensors)
        features = encode_prompts(clip, architecture, config.pairs)
        clip.visual.attnpool = PlainAttentionPool(clip.visual.attnpool)
        version = digest_of({"name": cls.name, "revision": 1, "weights": weights.sha256, "pairs": config.pairs})
        scale = float(clip.logit_scale.exp())
        return cls(PromptClassifier(clip.visual, features, (True, False), scale, torch.device(device)), version)

    def __call__(self, output: Tensor, rainy: Tensor | None = None) -> Tensor:
        """B x 3 x H x W in [0,1], both sides at least 32, to B scores; `rainy` is not looked at.

        Raises ValueError on bad images, DataError on smaller ones.
        """
        if min(check_images(output, "output").shape[-2:]) < SMALLEST:
            raise DataError(
                f"CLIP-IQA needs images of at least {SMALLEST} x {SMALLEST} pixels, got "
                f"{output.shape[-2]} x {output.shape[-1]}; raise data.min_side or choose another scorer"
            )
        return torch.cat([self.classifier(image) for image in output.detach().split(1)])


class PlainAttentionPool(nn.Module):
    """CLIP's attention pooling without positional embedding: the mean feature attends to itself and all positions."""

    def __init__(self, pool: nn.Module):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.heads = pool.num_heads

    def forward(self, features: Tensor) -> Tensor:
        """B x C x H x W, any size, to B x D."""
        positions = features.flatten(2).transpose(1, 2)
        mean = positions.mean(1, keepdim=True)
        positions = torch.cat([mean, positions], dim=1)
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(mean), self.k_proj(positions), self.v_proj(positions))
        )
        return self.c_proj(F.scaled_dot_product_attention(query, key, value).flatten(1))
