"""Critic (ours): a learned ranking of the outputs of one rainy image, trained on the user's own clean images only.

It sees the output and the rainy input as three statistics: how rough the output still is across and down
(rain left in), and how much was removed that rain cannot have added (darkening, colour, blurred scene).
Their weights are the logistic regression (Bradley-Terry) of which of two outputs of one scene has the higher
PSNR, a convex fit. Which statistics, and NEAR, were chosen on 25 of Rain100L's shared pairs; the weights see none.

The outputs it learns from have known errors. Two small derainers are trained for the purpose on plain drawn
rain and then meet rain of more kinds (zoomed, lying, softer), so they leave some and lose some scene, as
real ones do; further rain left in or over-removed, blur, streaks, noise, tints and JPEG are added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rgsud_lib.config import CriticConfig, digest_of
from rgsud_lib.data.degradations import DEGRADATIONS, Degradation
from rgsud_lib.data.images import check_images
from rgsud_lib.data.sampling import cut, draw_crops
from rgsud_lib.errors import BundleError, DataError, TrainingError
from rgsud_lib.files import write_bytes
from rgsud_lib.inference import weights_digest
from rgsud_lib.networks.nafnet import NAFNet
from rgsud_lib.rewards.faults import imperfect
from rgsud_lib.training.progress import Progress

METADATA = "rgsud_critic"
WINDOW, STRIDE = 32, 8  # pixels: side and distance of the windows of a score map
FLOOR = 1e-6  # added to mean values before their logarithm
TEMPERATURE = 0.5  # dB by which one output must be better for a clear preference
OUTPUTS = 6  # made-up outputs of each scene
NEAR = 3.0  # dB: only outputs at most this far apart are paired, as a reward seldom compares others
WARM_UP = 0.2  # share of the steps before the derainers' outputs are worth ranking
RIDGE = 1e-3  # weight of the squared weights in the regression


class Critic:
    """Scorer without a fixed range, higher is better; only scores of one rainy image may be compared."""

    name = "critic"
    higher_is_better = True

    def __init__(self, weights: Tensor, config: CriticConfig) -> None:
        self.weights, self.config = weights.float(), config
        settings = {"window": (WINDOW, STRIDE), **config.model_dump(exclude={"enabled"})}
        digest = weights_digest({"weights": self.weights})
        self.version = digest_of({"name": self.name, "settings": settings, "weights": digest})

    @classmethod
    def train(cls, clean: Sequence[np.ndarray], config: CriticConfig, degradation: str = "rain") -> Critic:
        """Train on clean images, uint8 H x W x 3: a pure function of the arguments (on one kind of CPU).

        Raises DataError where there are none, TrainingError where no order is found in its examples.
        """
        if not len(clean):
            raise DataError("the critic got no clean images to train on; give some, or choose another reward.scorer")
        with _own_randomness(config.seed):
            return cls(_rank(*_examples(clean, config, DEGRADATIONS[degradation])), config)

    @torch.no_grad()
    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor:
        """Output and rainy B x 3 x H x W in [0,1] to B scores. Raises ValueError on bad images."""
        return _one_by_one(self._whole, output, rainy)

    @torch.no_grad()
    def score_map(self, output: Tensor, rainy: Tensor) -> Tensor:
        """The score of a window of 32 pixels around each pixel, B x 1 x H x W on the CPU; higher is better."""
        return _one_by_one(self._windows, output, rainy)

    def _whole(self, output: Tensor, rainy: Tensor) -> Tensor:
        return _logarithms(local_statistics(output, rainy).mean(dim=(2, 3))) @ self.weights

    def _windows(self, output: Tensor, rainy: Tensor) -> Tensor:
        statistics = F.pad(local_statistics(output, rainy), (WINDOW // 2,) * 4, mode="replicate")
        scores = _logarithms(F.avg_pool2d(statistics, WINDOW, STRIDE).movedim(1, -1)) @ self.weights
        return F.interpolate(scores[:, None], size=output.shape[-2:], mode="bilinear")

    def save(self, path: Path) -> None:
        """Write weights and settings as one safetensors file, atomically."""
        metadata = {"config": self.config.model_dump(mode="json"), "version": self.version}
        # One key: safetensors writes several in random order, and equal critics must be equal files.
        write_bytes(Path(path), save({"weights": self.weights}, {METADATA: json.dumps(metadata, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> Critic:
        """A saved critic. Raises BundleError: not a critic's file, or altered after it was written."""
        try:
            with safe_open(path, framework="pt") as opened:
                metadata = json.loads((opened.metadata() or {})[METADATA])
                critic = cls(opened.get_tensor("weights"), CriticConfig.model_validate(metadata["config"]))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BundleError(f"{path} is not a readable critic ({reason}); train it again") from None
        if critic.version != metadata.get("version"):
            raise BundleError(f"{path} was altered after it was written (its digest differs); train it again")
        return critic


def local_statistics(output: Tensor, rainy: Tensor) -> Tensor:
    """Per pixel: steps across, steps down, squared removal that is not rain; B x 3 x H x W.

    Rain only adds light, to all channels alike, so the rest of what was removed is not rain.
    """
    padded = F.pad(output, (0, 1, 0, 1), mode="replicate")
    across = (padded[..., :-1, 1:] - output).abs().mean(1)
    down = (padded[..., 1:, :-1] - output).abs().mean(1)
    removed = rainy - output
    rest = removed - removed.mean(1, keepdim=True).clamp(min=0)
    return torch.stack([across, down, rest.square().mean(1)], dim=1)


def _logarithms(means: Tensor) -> Tensor:
    return (means + FLOOR).log()


def _one_by_one(score: Callable[[Tensor, Tensor], Tensor], output: Tensor, rainy: Tensor) -> Tensor:
    """Check the images and score each by itself: sums over a batch may round differently."""
    check_images(output, "output"), check_images(rainy, "rainy")
    pairs = zip(output.float().cpu(), rainy.float().cpu(), strict=True)
    return torch.cat([score(image[None], source[None]) for image, source in pairs])


def _psnr(output: Tensor, clean: Tensor) -> Tensor:
    """PSNR of each image in dB, at most 60."""
    return -10 * torch.log10((output - clean).square().mean(dim=(1, 2, 3)) + FLOOR)


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """One thread and a seeded generator inside; the caller's threads and random state are as before afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _examples(clean: Sequence[np.ndarray], config: CriticConfig, degradation: Degradation) -> tuple[Tensor, Tensor]:
    """Statistics (N x OUTPUTS x 3) and PSNR (N x OUTPUTS, dB) of made-up outputs of N drawn scenes."""
    derainers = [NAFNet(config.width, (1, 1), 1, (1, 1)).to(memory_format=torch.channels_last) for _ in range(2)]
    optimizers = [torch.optim.Adam(derainer.parameters(), lr=config.learning_rate) for derainer in derainers]
    images = {str(index): image for index, image in enumerate(clean)}
    names, scenes = list(images), config.scenes
    statistics, truths = [], []
    with Progress("critic", config.steps) as progress:
        for step in range(config.steps):
            rng = np.random.default_rng((config.seed, step))
            scene = cut(draw_crops(names, scenes, rng), config.crop, images.__getitem__)
            plain = degradation.draw(scene, int(rng.integers(2**31)))
            for derainer, optimizer in zip(derainers, optimizers, strict=True):
                _step(optimizer, (derainer(plain) - scene).abs().mean())
            if step >= WARM_UP * config.steps:
                rainy = degradation.vary(scene, rng)
                for _ in range(OUTPUTS):
                    output = imperfect(scene, rainy, derainers, rng, degradation)
                    statistics.append(_logarithms(local_statistics(output, rainy).mean(dim=(2, 3))))
                    truths.append(_psnr(output, scene))
            progress.advance()
    # Both lists are by step, output, scene.
    return (
        torch.stack(statistics).view(-1, OUTPUTS, scenes, 3).transpose(1, 2).flatten(0, 1),
        torch.stack(truths).view(-1, OUTPUTS, scenes).transpose(1, 2).flatten(0, 1),
    )


def _rank(statistics: Tensor, truths: Tensor) -> Tensor:
    """Weights of the statistics: logistic regression over all near pairs of each scene's outputs."""
    first, second = torch.triu_indices(OUTPUTS, OUTPUTS, 1)
    gap = (truths[:, first] - truths[:, second]).flatten().double()
    scale = statistics.flatten(0, 1).std(0).clamp(min=FLOOR).double()
    difference = (statistics[:, first] - statistics[:, second]).flatten(0, 1) / scale
    near = gap.abs() < NEAR
    difference, wish = difference[near], torch.sigmoid(gap[near] / TEMPERATURE)
    weights = torch.zeros(len(scale), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(difference @ weights, wish) + RIDGE * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    if not near.any() or not torch.isfinite(weights).all():
        raise TrainingError(
            f"the critic found no order in {len(truths)} scenes ({int(near.sum())} pairs, weights {weights.tolist()}); "
            "raise critic.steps, or choose another reward.scorer"
        )
    return (weights.detach() / scale).float()


def _step(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
