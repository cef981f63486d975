"""One configuration tree for the whole pipeline; `presets.py` has functions that return its values.

Whatever changes a result is in here, so the digest of a (part of the) tree is a resume and cache
key. Run ids, the data's paths and credentials never are.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rgsud_lib.derainer_sizes import SIZES, complete
from rgsud_lib.errors import ConfigError
from rgsud_lib.presets import PRESETS
from rgsud_lib.scorer_names import MAPPED, parse_scorer, shared


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataConfig(Section):
    """What `prepare` accepts and how it splits."""

    min_side: int = Field(64, ge=16, description="shorter side in pixels below which an image is quarantined")
    max_pixels: int = Field(100_000_000, ge=1, description="more pixels than this is taken for a decompression bomb")
    duplicate_bits: int = Field(
        8, ge=0, le=256, description="near-duplicate: perceptual hashes at most this many of 256 bits apart"
    )
    leak_bits: int = Field(
        72, ge=0, le=256, description="same scene, whatever the rain: at most this many of 256 bits apart"
    )
    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="share of each domain held back from training")
    seed: int = Field(0, ge=0, description="seed of the split")


class DerainerConfig(Section):
    """The restoration network. Its own settings, such as `width`, are those of its size where they are not given."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("nafnet", description=f"one of {', '.join(SIZES)}")
    size: str = Field("published", description="published, tiny (for a CPU) or mini (for the demo)")

    @model_validator(mode="before")
    @classmethod
    def complete_arguments(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        own = {key: value for key, value in document.items() if key not in cls.model_fields}
        name, size = document.get("name", "nafnet"), document.get("size", "published")
        return {"name": name, "size": size, **complete(name, size, own)}

    @property
    def arguments(self) -> dict[str, Any]:
        """What the network is built with."""
        return dict(self.model_extra or {})


class MethodConfig(Section):
    """RGSUD's other networks and loss weights (paper section 3; what the paper leaves open is `ours`)."""

    name: Literal["rgsud"] = "rgsud"
    unet_width: int = Field(32, ge=4, description="degradation estimation U-Net: channels at full resolution")
    unet_depth: int = Field(4, ge=1, le=6)
    generator_width: int = Field(64, ge=4, description="rain generator: channels")
    generator_blocks: int = Field(6, ge=1)
    discriminator_width: int = Field(64, ge=4, description="PatchGAN: channels of the first layer")
    discriminator_layers: int = Field(3, ge=1, le=5)
    adversarial_weight: float = Field(1.0, ge=0)
    derain_weight: float = Field(1.0, ge=0, description="weight of L_Der in L_s1 (paper: 1.0)")
    ssim_weight: float = Field(1.0, ge=0, description="weight of L_SSIM inside L_Der")
    pixel_loss: Literal["psnr", "l1", "l1_mse"] = Field(
        "psnr", description="form of L_PSNR: negative PSNR (NAFNet), L1, or half L1 and half 30 times squared error"
    )
    achromatic_weight: float = Field(10.0, ge=0, description="channel consistency of the generated rain (CSUD: 10)")
    degradation_weight: float = Field(
        1.0, ge=0, description="ours: the U-Net is also trained on images whose rain is known"
    )
    discriminator_fake: Literal["pseudo_rainy", "same_scene"] = Field(
        "pseudo_rainy",
        description="fake that D trains on: G(B_u, F(O_r)) as CSUD, or ours: rain of another image on derained O_r",
    )
    correction_weight: float = Field(
        0.0, ge=0, description="ours: L1 that keeps G near the plain transplant of the rain it was given"
    )
    adversarial_every: int = Field(1, ge=1, description="ours: steps between updates of G, the U-Net and D")
    rain_prior: Literal["none", "achromatic"] = Field(
        "none", description="ours: F keeps only light that is added to all channels alike"
    )
    rain_floor: float = Field(
        0.015, ge=0, description="with that prior, weaker rain than this counts as none ([0,1] scale)"
    )
    rain_jitter: float = Field(0.0, ge=0, lt=1, description="ours: random gain 1 +- this on the transplanted rain")
    clean_share: float = Field(
        0.0, ge=0, lt=1, description="ours: share of pseudo-pairs that are a clean crop itself (do no harm)"
    )


class WarmStartConfig(Section):
    """Ours, not the paper's: supervised start on drawn rain over the user's own clean images."""

    enabled: bool = False
    steps: int = Field(2600, ge=1)
    batch: int = Field(6, ge=1)
    crop: int = Field(64, ge=32)
    learning_rate: float = Field(1e-3, gt=0)
    final_learning_rate: float = Field(1e-4, ge=0, description="the cosine schedule of the warm start ends here")
    replay: float = Field(0.3, ge=0, le=1, description="share of stage 1's pseudo-pairs that stay drawn rain")
    late_replay: float = Field(0.05, ge=0, le=1, description="the same in stage 2, whose rain comes from rewards")


class TrainingConfig(Section):
    """Stage 1 (reward recycling) and what both stages share; `batch` is the batch of all devices together."""

    seed: int = Field(0, ge=0)
    steps: int = Field(100_000, ge=1, description="optimiser steps of stage 1")
    batch: int = Field(4, ge=1)
    crop: int = Field(256, ge=32, description="side of the square training crops, pixels")
    learning_rate: float = Field(2e-4, gt=0)
    final_learning_rate: float = Field(1e-6, ge=0, description="the cosine schedule ends here")
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Literal["auto"] | int = Field(
        "auto", description="processes a node, one a GPU; auto: all visible GPUs that divide the batch, one on a CPU"
    )
    nodes: int = Field(1, ge=1, description="machines that train together, by a Kubeflow TrainJob where more than one")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16 on a GPU, float32 on a CPU"
    )
    threads: int = Field(
        1, ge=1, description="CPU threads; a second one gains little at these sizes and loses much on a busy machine"
    )
    checkpoint_every: int = Field(1000, ge=1)
    log_every: int = Field(50, ge=1)
    validate_every: int = Field(2000, ge=1)
    validation_images: int = Field(8, ge=1, description="held-back clean images with drawn rain")

    @field_validator("devices", mode="before")
    @classmethod
    def auto_or_number(cls, value: Any) -> Any:
        if value != "auto" and not (isinstance(value, int) and value >= 1):
            raise ValueError("expected auto or a number of at least 1")
        return value


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


class ReinforcementConfig(Section):
    """Stage 2 (self-reinforcement training)."""

    source: Literal["reward", "last", "none"] = Field(
        "reward", description="reward: the pool keeps the best; last: self-distillation control; none: continue stage 1"
    )
    steps: int = Field(100_000, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    weight: float = Field(0.8, ge=0, description="weight of the self-reinforced loss (paper: 0.8)")
    distance: Literal["mse", "l1"] = Field("mse", description="form of the self-reinforced loss (paper: squared error)")
    rescore: bool = Field(False, description="score stage 1's pool again where another scorer or version filled it")


class EvaluationConfig(Section):
    """Whole-image inference, the judge, and what the report shows."""

    judge: str = Field("niqe", description="no-reference score that judges; must not be the reward")
    tile: int = Field(1024, ge=64, description="larger images are derained in overlapping tiles of this side")
    overlap: int = Field(64, ge=0, description="pixels over which neighbouring tiles are blended")
    mirror: bool = Field(False, description="derain as the mean over an image and its mirror image: twice the time")
    strips: int = Field(8, ge=1, description="image strips in the report")

    @model_validator(mode="after")
    def overlap_fits(self) -> EvaluationConfig:
        if 2 * self.overlap >= self.tile:
            raise ValueError(
                f"overlap {self.overlap} is too large for tile {self.tile}; use less than half of the tile"
            )
        return self


class ExportConfig(Section):
    opset: int = Field(18, ge=17)
    tolerance: float = Field(
        1e-3, gt=0, description="largest difference from PyTorch an exported model may show, on a [0,1] scale"
    )


class GateConfig(Section):
    """When a challenger becomes champion, see `docs/registry.md`. All rules must hold."""

    metric: Literal["psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"] = Field("psnr_rgb", description="decides on pairs")
    margin: float = Field(
        0.0, ge=0, description="the interval of the mean gain over the champion must lie above this (the metric's unit)"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the bootstrap intervals of mean gains")
    min_images: int = Field(5, ge=3, description="fewer pairs than this do not decide; fewer images at all: hold")
    judges: tuple[str, ...] = Field(
        ("niqe", "piqe", "decorrelation"),
        description="no-reference scores that decide without pairs: two must prefer the challenger, none the champion; "
        "those that share a member with the reward are not asked",
    )
    clean_psnr: float = Field(30.0, ge=0, description="dB that clean images must keep when they are derained")
    clean_drop: float = Field(1.0, ge=0, description="dB that the challenger may be below the champion there")
    clean_enough: float = Field(40.0, ge=0, description="dB there that nobody sees: the champion's more does not count")
    slowdown: float = Field(2.0, ge=0, description="times the champion's time an image may take; 0: not measured")


class NewDataConfig(Section):
    """When new rain is worth a training. One of the three is enough."""

    min_new_images: int = Field(50, ge=1, description="this many new rainy images are worth a training")
    drift_p_value: float = Field(
        0.01, ge=0, lt=1, description="fewer are, where the drift test's p-value is at most this; 0: never"
    )
    max_age_days: float = Field(90, gt=0, description="any are, where the last model is older than this")
    sample: int = Field(200, ge=10, le=2000, description="images the drift test looks at, of each side at most")


class RetrainingConfig(Section):
    """What a training keeps of the model before it: the registry's champion, else the workdir's newest export."""

    keep_split: bool = Field(
        False, description="images of the last model's dataset stay in training or held back, as they were"
    )
    warm_start_from_champion: bool = Field(
        False, description="stage 1 starts from the last model's networks, in place of drawn rain"
    )
    reuse_pool: bool = Field(False, description="stage 1 starts from the last model's rewards of images still there")

    @model_validator(mode="after")
    def clean_evaluation(self) -> RetrainingConfig:
        if (self.warm_start_from_champion or self.reuse_pool) and not self.keep_split:
            raise ValueError(
                "warm_start_from_champion and reuse_pool bring in what was learnt from the last model's training "
                "images, which must not be held back now: add --set retraining.keep_split=true"
            )
        return self


class FanOutConfig(Section):
    """How work on large sets is shared out; changes no result."""

    images: int = Field(2000, ge=1, description="images that one task checks or scores, at most")


class Config(Section):
    """The whole tree. `Config().digest()` identifies a result together with the data it was made from."""

    # However many processes share a batch, the result is the same within float tolerance: no part of a digest.
    WORKERS: ClassVar = {"devices", "nodes"}

    preset: str = "paper"
    data: DataConfig = DataConfig()
    derainer: DerainerConfig = DerainerConfig()
    method: MethodConfig = MethodConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    training: TrainingConfig = TrainingConfig()
    critic: CriticConfig = CriticConfig()
    scorers: ScorersConfig = ScorersConfig()
    reward: RewardConfig = RewardConfig()
    reinforcement: ReinforcementConfig = ReinforcementConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    fan_out: FanOutConfig = FanOutConfig()
    gate: GateConfig = GateConfig()
    new_data: NewDataConfig = NewDataConfig()
    retraining: RetrainingConfig = RetrainingConfig()

    @model_validator(mode="after")
    def usable_scorers(self) -> Config:
        reward, judge = self.reward.scorer, self.evaluation.judge
        if both := shared(reward, judge):
            raise ValueError(
                f"reward.scorer={reward!r} and evaluation.judge={judge!r} share {', '.join(both)}: "
                "the model was trained to please it; choose another judge"
            )
        members = {member for scorer in (reward, judge, *self.gate_judges) for member in parse_scorer(scorer)}
        if "critic" in members and not self.critic.enabled:
            raise ValueError("a scorer uses the critic, which is trained in prepare: add --set critic.enabled=true")
        if "tiles" in self.reward.candidates and reward not in MAPPED:
            raise ValueError(
                f"reward.candidates has 'tiles', but reward.scorer={reward!r} does not say where an output is better; "
                f"use one of {', '.join(MAPPED)}"
            )
        if len(self.gate_judges) < 2:
            raise ValueError(
                f"gate.judges={','.join(self.gate.judges)} has fewer than two that share nothing with "
                f"reward.scorer={reward!r}; add another judge, for example rain_layer"
            )
        return self

    @property
    def gate_judges(self) -> list[str]:
        """The gate's judges that the model was not trained to please."""
        return [judge for judge in self.gate.judges if not shared(judge, self.reward.scorer)]

    def digest(self, *sections: str) -> str:
        """First 16 hex digits of the SHA-256 of the named sections (default: all but `preset`)."""
        names = sections or tuple(name for name in type(self).model_fields if name != "preset")
        return digest_of({name: getattr(self, name).model_dump(mode="json", exclude=self.WORKERS) for name in names})

    def flat(self) -> dict[str, Any]:
        """`{"training.steps": 1000, ...}`: stable names for tracking."""
        return flatten(self.model_dump(mode="json"))


def digest_of(document: Any) -> str:
    """First 16 hex digits of the SHA-256 of a JSON document with sorted keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one level with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        path = f"{prefix}{name}"
        flat.update(flatten(value, f"{path}.") if isinstance(value, dict) else {path: value})
    return flat


def load_config(preset: str = "demo", overrides: list[str] | None = None) -> Config:
    """A preset with `section.field=value` overrides applied, validated.

    Raises ConfigError: unknown preset or field (the nearest names are given), bad value.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    tree: dict[str, Any] = {"preset": preset, **PRESETS[preset]()}
    for override in overrides or []:
        _apply(tree, override)
    return parse_config(tree)


def parse_config(document: dict[str, Any] | str) -> Config:
    """A Config from its JSON document. Raises ConfigError with path, value and rule of each mistake."""
    try:
        return Config.model_validate(json.loads(document) if isinstance(document, str) else document)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item) for item in error.errors())) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    known = [*Config().flat(), *(f"derainer.{key}" for sizes in SIZES.values() for key in sizes["published"])]
    if not separator:
        raise ConfigError(f"--set {override!r}: expected section.field=value, for example training.steps=1000")
    if path not in known:
        raise ConfigError(f"--set {override!r}: unknown setting {path!r}; {_nearest(path, known)}")
    *sections, field = path.split(".")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[field] = value


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"


def _explain(item: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown setting {path!r}; {_nearest(path, list(Config().flat()))}"
    rule = item["msg"].removeprefix("Value error, ")
    # A rule between several fields names them itself; the whole section would bury it.
    return rule if isinstance(item["input"], dict) else f"{path}={item['input']!r}: {rule}"
