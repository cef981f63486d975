"""Which score decides what is a reward, and the settings of the scorers that have any."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rgsud_lib.config.section import Section

Candidate = Literal["plain", "raw", "mirror", "flips", "rotations", "blend", "tiles"]


class DaclipConfig(Section):
    """DACLIP-IQA, the paper's reward model: how likely a degradation word is for an image."""

    checkpoint: str = Field(
        "hf://weblzw/daclip-uir-ViT-B-32-irsde/daclip_ViT-B-32.pt",
        description="a path, s3://bucket/key or hf://owner/repository[@revision]/file",
    )
    sha256: str = Field("", description="expected SHA-256 of the checkpoint; empty: what the hub states")
    architecture: Literal["ViT-B-32", "ViT-L-14"] = "ViT-B-32"
    words: tuple[str, ...] = Field(
        (
            "motion-blurry", "hazy", "jpeg-compressed", "low-light", "noisy",
            "raindrop", "rainy", "shadowed", "snowy", "uncompleted",
        ),
        description="what the softmax chooses between",
    )  # fmt: skip
    degradations: tuple[str, ...] = Field(("rainy",), description="the words whose probability counts against an image")
    pairs: tuple[tuple[str, str], ...] = Field(
        (), description="(good, bad) prompts; where given, the score is the mean probability of the good ones instead"
    )
    crops: int = Field(5, ge=0, description="crops at native resolution, besides one view of the whole image")

    @model_validator(mode="after")
    def known_degradations(self) -> DaclipConfig:
        unknown = sorted(set(self.degradations) - set(self.words))
        if unknown or not self.degradations:
            raise ValueError(f"degradations {unknown} are not among words; choose from {', '.join(self.words)}")
        return self


class ClipIqaConfig(Section):
    """CLIP-IQA (Wang et al., AAAI 2023): 'Good photo.' against 'Bad photo.', RN50 without positional embedding."""

    checkpoint: str = Field("openai", description="open_clip's name of the RN50 weights, or a file as for daclip")
    sha256: str = Field("", description="expected SHA-256 of the checkpoint; empty: what the hub states")
    pairs: tuple[tuple[str, str], ...] = Field((("Good photo.", "Bad photo."),), min_length=1)


class CriticConfig(Section):
    """Ours: a ranking of outputs, learnt on the user's own clean images from outputs whose errors are known."""

    enabled: bool = Field(True, description="train it in prepare; needed where a scorer uses `critic`")
    revision: Literal[2] = Field(2, description="of the algorithm; older critics are trained again")
    steps: int = Field(600, ge=10)
    scenes: int = Field(2, ge=1, description="scenes of a step, of which six made-up outputs each are ranked")
    crop: int = Field(96, ge=32)
    width: int = Field(8, ge=4, description="channels of the two derainers whose mistakes it learns from")
    learning_rate: float = Field(2e-3, gt=0)
    seed: int = Field(0, ge=0)


class ScorersConfig(Section):
    """Settings of the scorers that have any."""

    combine: Literal["zscore", "rank"] = Field("zscore", description="how an ensemble makes its scorers comparable")
    daclip: DaclipConfig = DaclipConfig()
    clip_iqa: ClipIqaConfig = ClipIqaConfig()


class RewardConfig(Section):
    """Which score decides what is a reward, what it chooses between, and what that may cost."""

    scorer: str = Field("critic", description="score that decides: a name, or a sum such as a+2*b")
    candidates: tuple[Candidate, ...] = Field(
        ("plain",), min_length=1, description="what is offered for an image, see `docs/rewards.md`"
    )
    budget: float = Field(0.05, gt=0, lt=1, description="share of a stage's time that scoring rounds may take")
    round_every: int = Field(50, ge=1, description="steps between scoring rounds; the budget says how many images")
    guard: float = Field(0.0, ge=0, description="strength of the fidelity guard; 0: off, 1: for light rain")
    margin: float = Field(0.0, ge=0, description="a candidate must score higher than the reward by more than this")
    warm_up: int = Field(0, ge=0, description="steps of stage 1 before anything is accepted")
    max_age: int = Field(0, ge=0, description="a reward this many steps old gives way to a lower score too; 0: never")

    @field_validator("candidates", mode="before")
    @classmethod
    def one_or_several(cls, value: Any) -> Any:
        """`mirror` and `mirror,blend` are as good as a JSON list."""
        names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)
        if len(set(names)) < len(names):
            raise ValueError(f"{', '.join(map(str, names))} names a source twice; give each once")
        return names
