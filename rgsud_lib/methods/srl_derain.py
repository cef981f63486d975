"""SRL-Derain (ICASSP 2024, arXiv 2403.18270): deraining of one photograph by self-supervised reinforcement learning.

| paper        | here        | meaning                                                               |
|--------------|-------------|-----------------------------------------------------------------------|
| I            | image       | the rainy photograph, all that there is to learn from                 |
| M^r          | mask        | where it rains (`rain_mask.py`)                                       |
| y^pr         | references  | pseudo-derained: rain pixels dimmed to random neighbours without it  |
| s_t, a_t     | state, actions | image and mask after t steps; each pixel of the mask is an agent   |
| r_t          | reward      | (y^pr - s_t)^2 - (y^pr - s_t+1)^2                                     |
| pi, V        | agents      | policy and value of pixel-wise A3C (PixelRL, Furuta et al., AAAI 2019)|

No training set, no weights, nothing is kept: the agents are trained on the photograph itself. Ours, for about a
minute on a CPU: the mask is not a learnt dictionary; actions take only grey light away, as rain only adds such, and
three of them compare with what lies across the rain's direction, which is where the policy starts; short episodes on
crops; no recurrent state and no BRISQUE term in the reward. Advantage actor-critic by one worker: "A3C" in name only,
as in PixelRL's code. `docs/method.md` has what the agents add to the mask and where the method fails.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgsud_lib.config.methods import SrlDerainConfig
from rgsud_lib.data.images import check_images
from rgsud_lib.losses import gaussian_blur
from rgsud_lib.methods.rain_mask import REACHES, across, find_rain, taken

STEP = 4 / 255  # what the smallest actions change
START = len(REACHES)  # the action a fresh policy prefers: the best of the reaches
PREFERENCE = 2.0  # by this in its logit


def derain_one(
    image: Tensor,
    config: SrlDerainConfig | None = None,
    seed: int = 0,
    advance: Callable[[float], object] | None = None,
) -> Tensor:
    """Derain one image, 1 x 3 x H x W in [0,1], to one of that shape in [0,1]; the same seed gives the same bits.

    `advance` is told the share of the work that was done since it was last called. An image in which no rain is
    found comes back as it is. Raises DataError: not one image, or not in [0,1].
    """
    config = config or SrlDerainConfig()
    check_images(image, "image")
    mask = find_rain(image, config.max_scenery)
    if not mask.where.any():
        return image.clone()
    generator = torch.Generator().manual_seed(seed)
    references = torch.cat([fill(image, mask.where, generator) for _ in range(config.references)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agents = Agents(config.width)
    train(agents, image, mask.where, mask.angle, references, config, generator, advance)
    return act(agents, image, mask.where, mask.angle, config.steps)


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
        self.policy.bias.data[START] = PREFERENCE

    def forward(self, state: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(torch.cat([state - 0.5, mask.float()], dim=1))
        return self.policy(features), self.value(features)


def outcomes(state: Tensor, angle: float) -> Tensor:
    """What each action would make of each pixel, B x A x 3 x H x W.

    Take the grey light that exceeds both sides across the rain at each of the reaches, or at the best of them; that
    exceeds the median or a Gaussian; nothing; darker; brighter.
    """
    windows = F.unfold(F.pad(state, (1,) * 4, mode="replicate"), 3).view(len(state), 3, 9, *state.shape[-2:])
    blurred = gaussian_blur(F.pad(state, (3,) * 4, mode="replicate"), 7, 1.5)
    light = [taken(state, across(state, angle, reach)) for reach in REACHES]
    light += [torch.stack(light).amax(0), taken(state, windows.median(2).values), taken(state, blurred)]
    made = [state - amount for amount in light]
    return torch.stack([*made, state, state - STEP, state + STEP], dim=1).clamp(0, 1)


ACTIONS = len(REACHES) + 6


def chosen(made: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """The next state: of each rain pixel the outcome of its action (B x H x W), of any other no change."""
    index = actions[:, None, None].expand(-1, 1, 3, -1, -1)
    return torch.where(mask, made.gather(1, index)[:, 0], made[:, -3])


def train(
    agents: Agents,
    image: Tensor,
    mask: Tensor,
    angle: float,
    references: Tensor,
    config: SrlDerainConfig,
    generator: torch.Generator,
    advance: Callable[[float], object] | None = None,
) -> None:
    """Episodes on random crops, each towards a random reference; the learning rate falls as (1 - t)^0.9 (paper)."""
    optimizer = torch.optim.Adam(agents.parameters(), config.learning_rate)
    for episode in range(config.episodes):
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - episode / config.episodes) ** 0.9
        state, where, goal = _crops(image, mask, references, config, generator)
        if where.any():
            optimizer.zero_grad(set_to_none=True)
            episode_loss(agents, state, where, goal, angle, config, generator).backward()
            nn.utils.clip_grad_norm_(agents.parameters(), 1.0)
            optimizer.step()
        if advance is not None:
            advance(1 / config.episodes)


def episode_loss(
    agents: Agents, state: Tensor, mask: Tensor, goal: Tensor, angle: float, config: SrlDerainConfig,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Advantage actor-critic (Mnih et al., ICML 2016, Algorithm S3) at each pixel of the mask, mean over these.

    -log pi(a_t) (R_t - V) + (R_t - V)^2 / 2 - beta H(pi), where R_t = r_t + gamma R_t+1.
    """
    history, rewards = [], []
    for _ in range(config.steps):
        logits, value = agents(state, mask)
        likelihood = torch.log_softmax(logits, dim=1)
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()  # Gumbel: argmax is a draw from pi
        actions = (likelihood.detach() + noise).argmax(1)
        following = chosen(outcomes(state, angle), actions, mask)
        rewards.append(255 * ((goal - state).square() - (goal - following).square()).mean(1, keepdim=True))
        history.append((likelihood.gather(1, actions[:, None]), value, -(likelihood.exp() * likelihood).sum(1, True)))
        state = following
    total, losses = torch.zeros_like(rewards[0]), []
    for reward, (likelihood, value, entropy) in zip(reversed(rewards), reversed(history), strict=True):
        total = reward + config.discount * total
        advantage = total - value
        losses.append(advantage.square() / 2 - likelihood * advantage.detach() - config.entropy * entropy)
    return sum(loss[mask].mean() for loss in losses)


@torch.no_grad()
def act(agents: Agents, image: Tensor, mask: Tensor, angle: float, steps: int) -> Tensor:
    """The photograph after the agents' likeliest actions."""
    for _ in range(steps):
        actions = agents(image, mask)[0].argmax(1)
        image = chosen(outcomes(image, angle), actions, mask)
    return image


def fill(image: Tensor, mask: Tensor, generator: torch.Generator, reach: int = 4, draws: int = 12) -> Tensor:
    """y^pr by stochastic filling: each pixel with rain is dimmed towards a random one without it, `reach` pixels away.

    Where `draws` draws find none, the mean of those within twice as far stands for it; where there is none, nothing.
    Ours: only grey light is taken, as by the actions; to take the other pixel's colour costs 0.5 to 2 dB.
    """
    height, width = image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    filled, missing = image.clone(), mask[0, 0].clone()
    for _ in range(draws):
        down, right = torch.randint(-reach, reach + 1, (2, height, width), generator=generator)
        source = (rows + down).clamp(0, height - 1), (columns + right).clamp(0, width - 1)
        found = missing & ~mask[0, 0][source]
        filled = torch.where(found, image[0][(slice(None), *source)], filled)
        missing &= ~found
    dry, side = (~mask).to(image), 4 * reach + 1
    share = F.avg_pool2d(dry, side, stride=1, padding=2 * reach)
    mean = F.avg_pool2d(image * dry, side, stride=1, padding=2 * reach) / share.clamp(min=1e-6)
    return image - taken(image, torch.where(missing & (share > 0), mean, filled))


def _crops(
    image: Tensor, mask: Tensor, references: Tensor, config: SrlDerainConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops of the image, the mask and a random reference each, stacked."""
    height, width = (min(config.crop, length) for length in image.shape[-2:])
    cut = []
    for _ in range(config.batch):
        limits = image.shape[-2] - height + 1, image.shape[-1] - width + 1, len(references)
        top, left, number = (int(torch.randint(limit, (1,), generator=generator)) for limit in limits)
        box = ..., slice(top, top + height), slice(left, left + width)
        cut.append((image[box], mask[box], references[number : number + 1][box]))
    state, where, goal = (torch.cat(part) for part in zip(*cut, strict=True))
    return state, where, goal
