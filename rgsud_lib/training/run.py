"""Stage 1 and stage 2 as trainings: what is built, which phases run, what is left in the bundle."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save

from rgsud_lib.config import Config
from rgsud_lib.data.degradations import DEGRADATIONS
from rgsud_lib.data.images import to_tensor
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.distributed import node_folder
from rgsud_lib.errors import BundleError
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.inference import save_derainer
from rgsud_lib.rewards import build_scorer, require_weights
from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.rewards.scorer import check_scorer
from rgsud_lib.tracking import StageRun
from rgsud_lib.training.batches import Batches
from rgsud_lib.training.curves import Curves
from rgsud_lib.training.phase import Phase
from rgsud_lib.training.pool_page import POOL_PAGE, pool_page
from rgsud_lib.training.recycling import Recycler
from rgsud_lib.training.runtime import make_fabric, stop_on_sigterm
from rgsud_lib.training.trainer import Trainer
from rgsud_lib.training.validation import Validator

GRID_IMAGES = 2  # fixed rainy images shown of each split


def train_recycle(
    config: Config, dataset: Path, folder: Path | None, run: StageRun, reinforced: Path | None = None
) -> dict[str, Any]:
    """Stage 1 in `folder`: the warm start if enabled, then unpaired training that fills the pool.

    Where `reinforced`, an earlier model's stage 2, is given, `config.retraining` says what is taken from it. Here and
    in stage 2, `folder` is None in all but the first of several processes, which alone returns facts.
    """
    warm, training = config.warm_start, config.training
    rates = training.learning_rate, training.final_learning_rate
    phases = [Phase("recycle", training.steps, *rates, recycles=True, rewards=False)]
    if warm.enabled and not (reinforced and config.retraining.warm_start_from_champion):
        rates = warm.learning_rate, warm.final_learning_rate
        phases.insert(0, Phase("warm_start", warm.steps, *rates, recycles=False, rewards=False))
    with stop_on_sigterm() as stop:
        trainer = _trainer(config, dataset, folder, run, stop, "reward")
        if reinforced:
            _follow(trainer, reinforced)
        trainer.run(phases)
    return _finish(config, trainer, phases)


def train_reinforce(
    config: Config, dataset: Path, recycled: Path, folder: Path | None, run: StageRun
) -> dict[str, Any]:
    """Stage 2 in `folder`: starts from stage 1's weights and pool; the switch is on the rewards."""
    stage = config.reinforcement
    phase = Phase(
        "reinforce",
        stage.steps,
        stage.learning_rate,
        config.training.final_learning_rate,
        recycles=True,
        rewards=stage.source != "none",
    )
    with stop_on_sigterm() as stop:
        trainer = _trainer(config, dataset, folder, run, stop, "last" if stage.source == "last" else "reward")
        _start_from(trainer, recycled)
        trainer.run([phase])
    return _finish(config, trainer, [phase])


def _trainer(config: Config, dataset: Path, folder: Path | None, run: StageRun, stop: Any, policy: str) -> Trainer:
    data, reward = Dataset.open(dataset), config.reward
    fabric = make_fabric(config.training)
    folder = node_folder(folder)
    trainer = Trainer(config, fabric, folder, Curves(folder, run), stop, resume_key=folder.name)
    rainy = {record.id: record.height * record.width for record in data.select("rainy", "train")}
    clean = [record.id for record in data.select("clean", "train")]
    scorer = build_scorer(reward.scorer, config, data.images("clean", "train"), data.critic, str(fabric.device))
    check_scorer(scorer, {image: to_tensor(data.image(image)) for image in list(rainy)[:GRID_IMAGES]})
    require_weights(config.evaluation.judge, config)
    pool = RewardPool(folder / "pool", scorer.name, scorer.version, policy, reward.margin, reward.max_age)
    held_back = [
        data.image(record.id) for record in data.select("clean", "validation")[: config.training.validation_images]
    ]
    shown = list(rainy)[:GRID_IMAGES] + [record.id for record in data.select("rainy", "validation")][:GRID_IMAGES]
    trainer.attach(
        Batches(config, list(rainy), clean, data.image, pool),
        Recycler(reward, rainy, data.image, scorer, pool, config.training.seed, trainer.derain, trainer.derain_raw),
        Validator(
            held_back,
            [(image, data.image(image)) for image in shown],
            config.training.seed,
            trainer.derain,
            DEGRADATIONS[config.degradation.name].draw,
        ),
    )
    return trainer


def _start_from(trainer: Trainer, recycled: Path) -> None:
    """Networks, EMA and pool of stage 1; a checkpoint of stage 2, where there is one, overrides them later."""
    config = trainer.config
    _load_networks(trainer, recycled)
    index = json.loads((recycled / "pool" / "index.json").read_text())
    steps = config.training.steps + (config.warm_start.steps if config.warm_start.enabled else 0)
    rescore = partial(_rescore, trainer.recycler) if config.reinforcement.rescore else None
    trainer.pool.adopt(index, recycled / "pool", steps, rescore)


def _follow(trainer: Trainer, reinforced: Path) -> None:
    """Start stage 1 where an earlier model ended: from its networks, and from its rewards of images still trained on.

    The evaluation shows the earlier model as the warm start. Another scorer's rewards are scored again.
    """
    keep, images = trainer.config.retraining, trainer.recycler.images
    if keep.warm_start_from_champion:
        _load_networks(trainer, reinforced)
        if trainer.main:
            save_derainer(trainer.ema.module, trainer.config.derainer, trainer.folder / "warm_start.safetensors")
    if keep.reuse_pool:
        index = json.loads((reinforced / "pool" / "index.json").read_text())
        entries = {image: entry for image, entry in index["entries"].items() if image in images}
        steps = max((entry["step"] for entry in entries.values()), default=0)
        rescore = partial(_rescore, trainer.recycler)
        trainer.pool.adopt(index | {"entries": entries}, reinforced / "pool", steps, rescore)


def _load_networks(trainer: Trainer, folder: Path) -> None:
    path, name = folder / "networks.safetensors", trainer.config.method.name
    with safe_open(path, "pt") as file:
        theirs = (file.metadata() or {}).get("method", "rgsud")  # the only one before the name was written down
    if theirs != name:
        raise BundleError(
            f"the networks in {folder} are of method {theirs!r}, this configuration's is {name!r}; "
            f"use --set method.name={theirs}, or train from the start"
        )
    try:
        trainer.method.load_state_dict(load_file(path))
        trainer.ema.module.load_state_dict(load_file(folder / "derainer.safetensors"))
    except RuntimeError as error:
        raise BundleError(
            f"the networks in {folder} are of other sizes than this configuration's ({str(error).splitlines()[0]}); "
            "use the derainer and method settings they were trained with, or train from the start"
        ) from error
    trainer.ema.updates = trainer.config.training.steps


def _rescore(recycler: Recycler, image: str, reward: np.ndarray) -> tuple[float, bool]:
    score, trusted = recycler.judge(to_tensor(reward), to_tensor(recycler.load(image)))
    return score.item(), trusted.item()


def _finish(config: Config, trainer: Trainer, phases: list[Phase]) -> dict[str, Any]:
    """Write what the bundle holds; the working state goes when the bundle is sealed."""
    if not trainer.main:
        return {}
    folder = trainer.folder
    save_derainer(trainer.ema.module, config.derainer, folder / "derainer.safetensors")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trainer.method.state_dict().items()}
    write_bytes(folder / "networks.safetensors", save(weights, {"method": config.method.name}))
    write_json(folder / "pool" / "index.json", trainer.pool.index())
    write_bytes(folder / POOL_PAGE, pool_page(trainer.pool, trainer.recycler.load).encode())
    trainer.curves.run.log_artifact(folder / POOL_PAGE)
    crops = {phase: phase.steps * trainer.batches.count(phase) for phase in phases}
    pixels = sum(count * trainer.batches.side(phase) ** 2 for phase, count in crops.items())
    seen = {"images": sum(crops.values()), "megapixels": pixels / 1e6}
    return {"validation_psnr_rgb": trainer.last_psnr, **trainer.pool.statistics(), **seen}
