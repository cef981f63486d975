"""The one loop. Stage 1 and stage 2 are the same trainer with other phases.

Its state is one dictionary, saved whole at checkpoints; all randomness is a function of
(seed, step). So a killed run, resumed, ends in the same weights, pool and log. Several processes hold the
same state and share each batch; the first of them logs, validates and saves.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rgsud_lib import distributed
from rgsud_lib.config import Config
from rgsud_lib.errors import Preempted, TrainingError
from rgsud_lib.inference import derain, save_derainer
from rgsud_lib.methods import build_method
from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.storage.snapshots import share
from rgsud_lib.training.batches import Batches
from rgsud_lib.training.budget import Effort, report_cost
from rgsud_lib.training.checkpoint import load_checkpoint, save_checkpoint
from rgsud_lib.training.curves import Curves
from rgsud_lib.training.ema import Ema
from rgsud_lib.training.phase import Clock, Phase, cosine
from rgsud_lib.training.progress import Progress, log
from rgsud_lib.training.recycling import Recycler
from rgsud_lib.training.runtime import StopRequest
from rgsud_lib.training.state import capture, restore
from rgsud_lib.training.steps import make_optimizers, step_updates
from rgsud_lib.training.validation import Validator, save_grid

MAX_SKIPPED = 20  # non-finite steps in a row before training gives up


class Trainer:
    """Holds what a stage trains and runs its phases; `folder` is the stage's bundle folder."""

    def __init__(self, config: Config, fabric: Any, folder: Path, curves: Curves, stop: StopRequest, resume_key: str):
        self.config, self.fabric, self.folder, self.curves = config, fabric, folder, curves
        self.stop, self.resume_key, self.main = stop, resume_key, distributed.rank() == 0
        self.method = build_method(config).to(memory_format=torch.channels_last)
        self.method.to(fabric.device)
        self.ema = Ema(self.method.derainer, config.training.ema_decay)
        self.phase_name, self.step, self.skipped, self.last_psnr = "", 0, 0, 0.0

    def attach(self, batches: Batches, recycler: Recycler, validator: Validator) -> None:
        """What the steps draw from and are measured with (they in turn derain with this trainer's EMA weights)."""
        self.batches, self.recycler, self.validator = batches, recycler, validator

    @property
    def pool(self) -> RewardPool:
        return self.recycler.pool

    def derain(self, images: Tensor) -> Tensor:
        """Full images by the EMA weights, clamped to [0,1], on the CPU: what is scored and validated."""
        return self._derain(self.ema.module, images)

    def derain_raw(self, images: Tensor) -> Tensor:
        """The same by the present weights."""
        return self._derain(self.method.derainer, images)

    def _derain(self, derainer: nn.Module, images: Tensor) -> Tensor:
        tile, overlap = self.config.evaluation.tile, self.config.evaluation.overlap
        images = images.to(self.fabric.device, memory_format=torch.channels_last)
        with torch.no_grad(), self.fabric.autocast():
            return derain(derainer, images, tile, overlap).float().cpu()

    def run(self, phases: list[Phase]) -> None:
        """Run the phases that are not behind us, from the last checkpoint where there is one.

        Raises Preempted after SIGTERM (the state is saved), TrainingError after too many non-finite steps.
        """
        for phase in phases:
            distributed.part(self.batches.count(phase))  # what cannot be divided fails now, not after hours
        state = distributed.broadcast(load_checkpoint(self.folder) if self.main else None)
        if self.main:
            self.curves.restore(state["curves"] if state else None)
        names = [phase.name for phase in phases]
        first = names.index(state["phase"]) if state else 0
        for number in range(first, len(phases)):
            self._start(phases[number], state if number == first else None)
            self._run_phase(phases[number])
            if self.main and number < len(phases) - 1:
                save_derainer(self.ema.module, self.config.derainer, self.folder / f"{phases[number].name}.safetensors")

    def _start(self, phase: Phase, state: dict[str, Any] | None) -> None:
        """Fresh optimisers for a phase, or everything as it was at the checkpoint."""
        self.phase_name, self.step = phase.name, 0
        self.effort = Effort(
            self.config.method.adversarial_every, 0 if phase.name == "reinforce" else self.config.reward.warm_up
        )
        self.optimizers = make_optimizers(self.method, phase.learning_rate, self.config.training.betas)
        if state:
            restore(self, state)
        else:
            self.validator.psnr_rgb(2)  # likewise a set-up that cannot validate

    def _run_phase(self, phase: Phase) -> None:
        training = self.config.training
        with Progress(phase.name, phase.steps, self.step) as progress:
            clock = Clock()
            while self.step < phase.steps:
                rate = cosine(phase, self.step)
                batch = self.batches.batch(phase, self.step, self.fabric.device)
                clock.mark("data")
                self.effort.spend(self.step, partial(self._train_step, phase, batch, rate))
                self.step += 1
                clock.mark("step")
                progress.advance(f"validation {self.last_psnr:.2f} dB" if self.last_psnr else "")
                if phase.recycles and self.step % self.config.reward.round_every == 0:
                    self.recycler.recycle_due(self.effort.until(self.step), self._global(phase))
                    clock.mark("scoring")
                last = self.step == phase.steps
                if last and phase.recycles and not phase.rewards:
                    self.recycler.recycle_all(self._global(phase))
                    clock.mark("filling")
                if self.step % training.log_every == 0 or self.step % training.validate_every == 0 or last:
                    self._log(phase, rate, clock, validate=self.step % training.validate_every == 0 or last)
                stop = distributed.any_rank(bool(self.stop))
                if self.step % training.checkpoint_every == 0 or last or stop:
                    self._save()
                    clock.mark("checkpoint")
                if stop and not last:
                    where = f"step {self.step} of {phase.name}"
                    raise Preempted(f"SIGTERM at {where}: the state is saved; the same command resumes")
            if phase.recycles and clock.total:
                report_cost(phase.name, clock.scoring_share(), self.config.reward.budget)

    def _train_step(self, phase: Phase, batch: Any, rate: float) -> None:
        """The updates that the method has for this step. Non-finite gradients reach no optimiser."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        adversarial = self.step % self.config.method.adversarial_every == 0
        updates = step_updates(self.method, batch, phase, adversarial, self.config.reinforcement, self.fabric)
        finite = all([self._update(update.group, update.losses) for update in updates])
        self.ema.update(self.method.derainer)
        self.skipped = 0 if finite else self.skipped + 1
        if not finite:
            log.warning("%s step %d: a gradient was not finite; that update was left out", phase.name, self.step)
            self.curves.add({"skipped_updates": 1.0})
        if self.skipped >= MAX_SKIPPED:
            raise TrainingError(
                f"{self.skipped} steps in a row had non-finite gradients (step {self.step} of {phase.name}); "
                "lower the learning rate, or use training.precision=32-true"
            )

    def _update(self, name: str, losses: dict[str, Tensor]) -> bool:
        """Backward, mean over the ranks, clip, step; False and no step where the gradient is not finite."""
        optimizer = self.optimizers[name]
        weights = optimizer.param_groups[0]["params"]
        optimizer.zero_grad(set_to_none=True)
        values = torch.stack([value.float() for value in losses.values()])
        self.fabric.backward(values.sum())
        values = values.detach()
        distributed.average([values, *(weight.grad for weight in weights if weight.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_(weights, self.config.training.clip_norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            optimizer.step()
            averages = {f"loss/{key}": value for key, value in zip(losses, values.tolist(), strict=True)}
            self.curves.add(averages | {f"gradient_norm/{name}": float(norm)})
        return finite

    def _global(self, phase: Phase) -> int:
        """Steps since the stage began, over all its phases."""
        return self.batches.offset(phase) + self.step

    def _log(self, phase: Phase, rate: float, clock: Clock, validate: bool) -> None:
        if not self.main:
            return
        values = {"learning_rate": rate, **self.pool.statistics()}
        if validate:
            values["validation/psnr_rgb"] = self.last_psnr = self.validator.psnr_rgb()
            step = self._global(phase)
            grid = self.validator.grid(lambda name: self.pool.image(name) if name in self.pool.entries else None)
            path = self.folder / "grids" / f"{step:08d}.png"
            save_grid(grid, path)
            self.curves.run.log_image(path, "rainy_derained_reward_clean", step)
        clock.mark("validation")
        self.curves.row(self._global(phase), phase.name, values, clock.report())

    def _save(self) -> None:
        """The checkpoint, by the first process; no process goes on (or ends) before it is written."""
        if self.main:
            save_checkpoint(self.folder, capture(self))
        if distributed.leads_node():
            self.pool.collect_garbage()
        if self.main:
            share(self.folder)
        distributed.wait()
