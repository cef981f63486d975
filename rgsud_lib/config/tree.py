"""The whole configuration as one tree, and its digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

from pydantic import model_validator

from rgsud_lib.config.images import DataConfig, DegradationConfig, FanOutConfig, NewDataConfig
from rgsud_lib.config.networks import DerainerConfig, MethodConfig
from rgsud_lib.config.results import EvaluationConfig, ExportConfig, GateConfig
from rgsud_lib.config.rewards import CriticConfig, RewardConfig, ScorersConfig
from rgsud_lib.config.section import Section
from rgsud_lib.config.training import ReinforcementConfig, RetrainingConfig, TrainingConfig, WarmStartConfig
from rgsud_lib.scorer_names import MAPPED, parse_scorer, shared


class Config(Section):
    """The whole tree. `Config().digest()` identifies a result together with the data it was made from."""

    # However many processes share a batch, the result is the same within float tolerance: no part of a digest.
    WORKERS: ClassVar = {"devices", "nodes"}

    preset: str = "paper"
    data: DataConfig = DataConfig()
    degradation: DegradationConfig = DegradationConfig()
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
        return digest_of(self.document(*sections))

    def document(self, *sections: str) -> dict[str, Any]:
        """What `digest` digests: the named sections as JSON, without what changes no result."""
        names = sections or tuple(name for name in type(self).model_fields if name != "preset")
        unused = self.WORKERS | self.method.others
        return {name: getattr(self, name).model_dump(mode="json", exclude=unused) for name in names}

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
