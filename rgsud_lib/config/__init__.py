"""One configuration tree for the whole pipeline; `presets.py` has functions that return its values.

Whatever changes a result is in here, so the digest of a (part of the) tree is a resume and cache
key. Run ids, the data's paths and credentials never are.
"""

from __future__ import annotations

from rgsud_lib.config.images import DataConfig, DegradationConfig, FanOutConfig, NewDataConfig
from rgsud_lib.config.loading import load_config, parse_config
from rgsud_lib.config.methods import CsudConfig, CycleganConfig, DcdganConfig, DerainCycleganConfig, NlclConfig
from rgsud_lib.config.networks import DerainerConfig, MethodConfig
from rgsud_lib.config.results import EvaluationConfig, ExportConfig, GateConfig
from rgsud_lib.config.rewards import Candidate, ClipIqaConfig, CriticConfig, DaclipConfig, RewardConfig, ScorersConfig
from rgsud_lib.config.section import Section
from rgsud_lib.config.serving import ServingConfig, serving_config
from rgsud_lib.config.training import ReinforcementConfig, RetrainingConfig, TrainingConfig, WarmStartConfig
from rgsud_lib.config.tree import Config, digest_of, flatten

__all__ = [
    "Candidate",
    "ClipIqaConfig",
    "Config",
    "CriticConfig",
    "CsudConfig",
    "CycleganConfig",
    "DaclipConfig",
    "DataConfig",
    "DegradationConfig",
    "DcdganConfig",
    "DerainCycleganConfig",
    "DerainerConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FanOutConfig",
    "GateConfig",
    "MethodConfig",
    "NewDataConfig",
    "NlclConfig",
    "ReinforcementConfig",
    "RetrainingConfig",
    "RewardConfig",
    "ScorersConfig",
    "Section",
    "ServingConfig",
    "TrainingConfig",
    "WarmStartConfig",
    "digest_of",
    "flatten",
    "load_config",
    "parse_config",
    "serving_config",
]
