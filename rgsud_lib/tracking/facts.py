"""What a stage's run in MLflow is opened with: whose child it is, its settings, and on what it ran.

Taken down when the stage begins, because another process, elsewhere and later, may be the one to open the run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rgsud_lib import __version__
from rgsud_lib.config import Config, digest_of
from rgsud_lib.revision import commit
from rgsud_lib.storage.listing import canonical
from rgsud_lib.task import LAUNCHER
from rgsud_lib.tracking.address import shown

PARAM_LENGTH = 6000  # characters of a parameter, MLflow's limit


@dataclass(frozen=True)
class Experiment:
    """The experiment that the environment names; neither: ours."""

    id: str = ""
    name: str = ""

    @classmethod
    def here(cls) -> Experiment:
        return cls(os.environ.get("MLFLOW_EXPERIMENT_ID", ""), os.environ.get("MLFLOW_EXPERIMENT_NAME", ""))


@dataclass(frozen=True)
class Opening:
    """All that opening a run takes; of JSON types, without a credential."""

    stage: str
    key: str  # the stage's: what its result depends on
    workdir: str
    run_key: str  # the pipeline run's
    name: str  # the parent's
    given: str  # MLFLOW_RUN_ID
    experiment: Experiment
    address: str  # the server that was meant, as it may be shown; empty for the workdir's own database
    finalized_later: bool
    started: int  # Unix milliseconds
    params: dict[str, str]
    tags: dict[str, str]
    config: dict[str, Any]

    @classmethod
    def of(cls, stage: str, config: Config, workdir: Path | str, key: str) -> Opening:
        """That of a stage in this process, now."""
        return cls(
            stage, key, canonical(workdir), run_key(config, workdir), parent_name(config),
            given=os.environ.get("MLFLOW_RUN_ID", ""),
            experiment=Experiment.here(),
            address=server(),
            finalized_later=bool(os.environ.get("KFP_RUN_ID") or os.environ.get(LAUNCHER)),
            started=int(time.time() * 1000),
            params={name: str(value)[:PARAM_LENGTH] for name, value in config.flat().items()},
            tags=_tags(config),
            config=json.loads(config.model_dump_json()),
        )  # fmt: skip

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Opening:
        """Back from JSON."""
        return cls(**{**document, "experiment": Experiment(**document["experiment"])})


def server() -> str:
    """MLFLOW_TRACKING_URI as it may be shown."""
    return shown(os.environ.get("MLFLOW_TRACKING_URI", ""))


def run_key(config: Config, workdir: Path | str) -> str:
    """What all stages of one pipeline run share: RGSUD_RUN_KEY, KFP_RUN_ID, or the workdir with the configuration."""
    given = os.environ.get("RGSUD_RUN_KEY") or os.environ.get("KFP_RUN_ID")
    return given or digest_of({"workdir": canonical(workdir), "config": config.digest()})


def parent_name(config: Config) -> str:
    return f"{config.preset} {config.digest()[:8]}"


def _tags(config: Config) -> dict[str, str]:
    return {
        "rgsud.code_version": __version__,
        "rgsud.config_digest": config.digest(),
        "rgsud.preset": config.preset,
        "rgsud.seed": str(config.training.seed),
        "rgsud.device": _device(config),
        "rgsud.gpus": os.environ.get("RGSUD_GPUS", ""),  # reserved for the task, see placement.py
        "rgsud.image": os.environ.get("RGSUD_IMAGE", ""),  # by digest
        "mlflow.source.git.commit": commit(),
    }


def _device(config: Config) -> str:
    torch = sys.modules.get("torch")  # a stage that has not imported it runs on the CPU
    if config.training.device == "cpu" or torch is None or not torch.cuda.is_available():
        return "cpu"
    return str(torch.cuda.get_device_name())
