"""SRL-Derain (ICASSP 2024, arXiv 2403.18270): deraining of one photograph by self-supervised reinforcement learning.

| paper        | here           | meaning                                                                |
|--------------|----------------|------------------------------------------------------------------------|
| I            | image          | the rainy photograph, all that there is to learn from                  |
| M^r          | mask           | where it rains (`rain_mask.py`)                                        |
| y^pr         | reference      | pseudo-derained: rain pixels dimmed to the dry ones around them        |
| s_t, a_t     | state, actions | image after t steps; each pixel of the mask is an agent                |
| r_t          | rewards        | (y^pr - s_t)^2 - (y^pr - s_t+1)^2                                      |
| pi, V        | agents         | policy and value of pixel-wise A3C (PixelRL, Furuta et al., AAAI 2019) |

No training set, no weights, nothing is kept: the agents start blank and are trained on the photograph itself. The
paper's agents learn towards references drawn at random from dry neighbours and end, at best, at their mean. Ours see
the photograph's own rain fall elsewhere on the reference, where the truth is known, as RGSUD transplants rain. Ours
too: the mask is not a learnt dictionary; actions take grey light away, as rain only adds such; the outcome is the
mean of the policy, not its likeliest action; short episodes on crops; no recurrent state, no BRISQUE in the reward.
One worker: "A3C" in name only, as in PixelRL's code. `docs/method.md` has what the agents add, and where it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.config.methods import SrlDerainConfig
from rgsud_lib.data.images import check_images
from rgsud_lib.methods.rain_mask import REACHES, RainMask, across, find_rain, taken

STEP = 4 / 255  # what the smallest actions change
NEAR, FAR = 2, 4  # pixels from which dry neighbours are taken
ACTIONS = len(REACHES) + 6
NOTHING = ACTIONS - 3


def derain_one(
    image: Tensor,
    config: SrlDerainConfig | None = None,
    seed: int = 0,
    advance: Callable[[float], object] | None = None,
) -> Tensor:
    """Derain one image, 1 x 3 x H x W in [0,1], to one of that shape in [0,1]; the same seed gives the same bits.

    `advance` is told the share of the work that was done since it was last called. An image in which no rain is
    found comes back as it is. Raises TypeError or ValueError: not one image, or not in [0,1].
    """
    config = config or SrlDerainConfig()
    if len(check_images(image, "image")) != 1:
        raise ValueError(f"image has shape {tuple(image.shape)}; expected one image, 1 x 3 x H x W: call once for each")
    mask = find_rain(image, config.max_scenery)
    if not mask.where.any():
        if advance is not None:
            advance(1.0)
        return image.clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agents = Agents(config.width)
    train(agents, image, mask, config, seed, advance)
    return act(agents, image, mask, config.steps)


class Agents(nn.Module):
    """B x 3 x H x W and the mask, B x 1 x H x W, to logits of the actions, B x A x H x W, and values B x 1 x H x W."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            *(
                layer
                for inputs, dilation in ((4, 1), (width, 2), (width, 3), (width, 2))
                for layer in (nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation), nn.ReLU())
            )
        )
        self.policy, self.value = nn.Conv2d(width, ACTIONS, 1), nn.Conv2d(width, 1, 1)
        for head in (self.policy, self.value):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, state: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(torch.cat([state - 0.5, mask.float()], dim=1))
        return self.policy(features), self.value(features)


def outcomes(state: Tensor, mask: Tensor, angle: float) -> Tensor:
    """What each action would make of each pixel, B x A x 3 x H x W.

    Take the grey light that exceeds both sides across the rain at each of the reaches, or at the best of them; that
    exceeds the mean of the dry pixels near by, or of those farther off; nothing; darker; brighter.
    """
    light = [taken(state, across(state, angle, reach)) for reach in REACHES]
    light += [torch.stack(light).amax(0), *(taken(state, dry_mean(state, mask, reach)) for reach in (NEAR, FAR))]
    made = [state - amount for amount in light]
    return torch.stack([*made, state, state - STEP, state + STEP], dim=1).clamp(0, 1)


def dry_mean(image: Tensor, mask: Tensor, reach: int) -> Tensor:
    """B x 3 x H x W: the mean of what is within `reach` pixels and not in the mask; the image where there is none."""
    dry, window = (~mask).to(image), {"kernel_size": 2 * reach + 1, "stride": 1, "padding": reach}
    share = F.avg_pool2d(dry, **window)
    return torch.where(share > 0, F.avg_pool2d(image * dry, **window) / share.clamp(min=1e-6), image)


def chosen(made: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """The next state: of each rain pixel the outcome of its action (B x H x W), of any other no change."""
    index = actions[:, None, None].expand(-1, 1, 3, -1, -1)
    return torch.where(mask, made.gather(1, index)[:, 0], made[:, NOTHING])


def train(
    agents: Agents,
    image: Tensor,
    mask: RainMask,
    config: SrlDerainConfig,
    seed: int,
    advance: Callable[[float], object] | None = None,
) -> None:
    """Episodes on random crops; the learning rate falls as (1 - t)^0.9 (released code)."""
    generator = torch.Generator().manual_seed(seed)
    reference = pseudo_derained(image, mask)
    optimizer = torch.optim.Adam(agents.parameters(), config.learning_rate)
    for episode in range(config.episodes):
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - episode / config.episodes) ** 0.9
        scenes = [rained(image, reference, mask.where, config.crop, generator) for _ in range(config.batch)]
        scene = Scene(*(torch.cat(parts) for parts in zip(*scenes, strict=True)))
        if scene.known.any():
            optimizer.zero_grad(set_to_none=True)
            episode_loss(agents, scene, mask.angle, config, generator).backward()
            nn.utils.clip_grad_norm_(agents.parameters(), 1.0)
            optimizer.step()
        if advance is not None:
            advance(1 / config.episodes)


def pseudo_derained(image: Tensor, mask: RainMask) -> Tensor:
    """y^pr: each pixel with rain gives up the grey light by which it exceeds the mean of the dry ones around it."""
    return image - taken(image, dry_mean(image, mask.where, FAR)) * mask.where


class Scene(NamedTuple):
    """Crops to learn on: rain where the truth is known, each B x 3 x h x w (images) or B x 1 x h x w (booleans)."""

    rainy: Tensor
    goal: Tensor
    mask: Tensor
    known: Tensor


def rained(image: Tensor, reference: Tensor, mask: Tensor, side: int, generator: torch.Generator) -> Scene:
    """A crop of the reference on which the photograph's own rain falls elsewhere, by a random way and strength."""
    height, width = image.shape[-2:]
    down, right = (int(torch.randint(length, (1,), generator=generator)) for length in (height, width))
    strength = 0.7 + 0.6 * torch.rand(1, generator=generator).item()
    light = strength * (image - reference).amin(1, keepdim=True)
    light, fallen = (layer.roll((down, right), (-2, -1)) for layer in (light, mask))
    tops = (int(torch.randint(max(1, length - side + 1), (1,), generator=generator)) for length in (height, width))
    rows, columns = (slice(top, top + side) for top in tops)
    rainy = (reference + light).clamp(0, 1)
    return Scene(*(layer[..., rows, columns] for layer in (rainy, reference, fallen, fallen & ~mask)))


def episode_loss(
    agents: Agents, scene: Scene, angle: float, config: SrlDerainConfig, generator: torch.Generator
) -> Tensor:
    """Advantage actor-critic (Mnih et al., ICML 2016, Algorithm S3), mean over the pixels whose truth is known.

    -log pi(a_t) (R_t - V) + (R_t - V)^2 / 2 - beta H(pi), where R_t = r_t + gamma R_t+1.
    """
    state, history, rewards = scene.rainy, [], []
    for _ in range(config.steps):
        logits, value = agents(state, scene.mask)
        likelihood = torch.log_softmax(logits, dim=1)
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()  # Gumbel: argmax is a draw from pi
        actions = (likelihood.detach() + noise).argmax(1)
        following = chosen(outcomes(state, scene.mask, angle), actions, scene.mask)
        rewards.append(255 * ((scene.goal - state).square() - (scene.goal - following).square()).mean(1, keepdim=True))
        history.append((likelihood.gather(1, actions[:, None]), value, -(likelihood.exp() * likelihood).sum(1, True)))
        state = following
    total, losses = torch.zeros_like(rewards[0]), []
    for reward, (likelihood, value, entropy) in zip(reversed(rewards), reversed(history), strict=True):
        total = reward + config.discount * total
        advantage = total - value
        losses.append(advantage.square() / 2 - likelihood * advantage.detach() - config.entropy * entropy)
    return sum(loss[scene.known].mean() for loss in losses)


@torch.no_grad()
def act(agents: Agents, image: Tensor, mask: RainMask, steps: int) -> Tensor:
    """The photograph after `steps` times the mean outcome of the policy."""
    for _ in range(steps):
        policy = agents(image, mask.where)[0].softmax(1)[:, :, None]
        image = torch.where(mask.where, (policy * outcomes(image, mask.where, mask.angle)).sum(1), image)
    return image
