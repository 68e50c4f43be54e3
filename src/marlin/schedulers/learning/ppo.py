"""The networks of proximal policy optimisation by four proposing agents: see `proposals`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from marlin.fleet.contract import OBJECTIVES
from marlin.schedulers.learning.networks import (
    Mlps,
    descend,
    joined,
    log_density,
    pack,
    seeded,
    set_rate,
    tensor,
    unpack,
)
from marlin.schedulers.learning.practice import Transition
from marlin.schedulers.learning.proposals import agreed
from marlin.schedulers.learning.ranking import ACTION_SIZE, start_latent
from marlin.schedulers.learning.returns import advantages

if TYPE_CHECKING:
    from marlin.schedulers.learning.proposals import Ppo

AGENTS = len(OBJECTIVES)
START_LOG_STD = -1.5


@dataclass(frozen=True)
class Rollout:
    """Rows to learn from."""

    rows: Tensor  # [R, F + N] states and scheme weights
    latent: Tensor  # [N, R, A] proposals before squashing
    density: Tensor  # [N, R] their log-density when they were made
    gain: Tensor  # [N, R] each agent's advantage, of mean zero and deviation one
    goal: Tensor  # [R, N] what the values shall be
    say: Tensor  # [N, R] one where the agent has a weight

    def only(self, rows: np.ndarray) -> Rollout:
        """Some of the rows, by their positions."""
        part = torch.as_tensor(rows)
        latent, density = self.latent[:, part], self.density[:, part]
        gain, say = self.gain[:, part], self.say[:, part]
        return Rollout(self.rows[part], latent, density, gain, self.goal[part], say)


class Learner(ABC):
    """Four actors; what values states and whose advantage an agent climbs is for subclasses."""

    critics: nn.Module

    def __init__(self, options: Ppo, inputs: int, seed: int) -> None:
        self.options, self.generator = options, seeded(seed)
        self.actors = Mlps(AGENTS, inputs, ACTION_SIZE, self.generator, torch.tanh, last=0.01)
        self.log_std = nn.Parameter(torch.full((AGENTS, 1, ACTION_SIZE), START_LOG_STD))
        self.start = tensor(start_latent(np.eye(AGENTS)))[:, None]
        self.critics = self.make_critics(inputs)
        parameters = [*self.actors.parameters(), self.log_std, *self.critics.parameters()]
        self.step = torch.optim.Adam(parameters, options.rate)

    @abstractmethod
    def make_critics(self, inputs: int) -> nn.Module:
        """Networks behind `values`."""

    @abstractmethod
    def values(self, rows: Tensor) -> Tensor:
        """Value of states by objective, [R, N]."""

    @abstractmethod
    def pursued(self, gain: Tensor, weights: Tensor) -> Tensor:
        """Each agent's advantage [N, R] from that of every objective [R, N]; weights [R, N]."""

    def set_rate(self, rate: float) -> None:
        """Learn at `rate` from here on."""
        set_rate([self.step], rate)

    def means(self, rows: Tensor) -> Tensor:
        """Middle of each agent's proposals before squashing, [N, R, A]."""
        return self.actors(rows) + self.start

    def act(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Actions [B, A] agreed on when every agent proposes the middle of its policy."""
        with torch.no_grad():
            return agreed(self.means(joined(seen, weights)).numpy(), weights)

    def propose(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sampled proposals before squashing, [N, B, A]."""
        with torch.no_grad():
            mean = self.means(joined(seen, weights))
            noise = torch.randn(mean.shape, generator=self.generator)
            return (mean + self.log_std.exp() * noise).numpy()

    def judged(self, latent: np.ndarray, walked: list[Transition]) -> Rollout:
        """Advantages and goals of proposals [N, R, A]; rows are in the order of T, then B."""
        options, shape = self.options, (len(walked), -1, AGENTS)
        weights = np.concatenate([t.weights for t in walked])
        rows = joined(np.concatenate([t.seen for t in walked]), weights)
        after = joined(np.concatenate([t.after for t in walked]), weights)
        with torch.no_grad():
            value, next_value = self.values(rows).numpy(), self.values(after).numpy()
            gain = advantages(
                np.stack([t.reward for t in walked]),
                value.reshape(shape),
                next_value.reshape(shape),
                np.stack([t.moved for t in walked])[..., None],
                options.discount,
                options.trace,
            ).reshape(-1, AGENTS)
            say = tensor(weights.T > 0.0)
            pursued = standardised(self.pursued(tensor(gain), tensor(weights)), say)
            density = log_density(tensor(latent), self.means(rows), self.log_std)
        return Rollout(rows, tensor(latent), density, pursued, tensor(gain + value), say)

    def update(self, batch: Rollout) -> None:
        """One step on the clipped objective of every agent and on the values.

        The squash is the same function before and after, so the ratio of densities of proposals
        is that of their latents.
        """
        options = self.options
        ratio = (
            log_density(batch.latent, self.means(batch.rows), self.log_std) - batch.density
        ).exp()
        kept = ratio.clamp(1.0 - options.clip, 1.0 + options.clip)
        climbed = torch.minimum(ratio * batch.gain, kept * batch.gain) * batch.say
        misjudged = ((self.values(batch.rows) - batch.goal) ** 2).mean()
        loss = options.value_weight * misjudged - climbed.mean(dim=1).sum()
        descend(self.step, loss - options.entropy * self.log_std.sum(), options.gradient_limit)

    def pack(self) -> dict[str, np.ndarray]:
        """The actors' parameters."""
        return pack({"actors": self.actors})

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave."""
        unpack({"actors": self.actors}, named)


class Independent(Learner):
    """Every agent climbs the advantage of its own objective, judged by a critic of its own."""

    def make_critics(self, inputs: int) -> Mlps:
        """Four networks of one value."""
        return Mlps(AGENTS, inputs, 1, self.generator)

    def values(self, rows: Tensor) -> Tensor:
        """See `Learner.values`."""
        return self.critics(rows)[..., 0].T

    def pursued(self, gain: Tensor, weights: Tensor) -> Tensor:
        """See `Learner.pursued`."""
        return gain.T


class Central(Learner):
    """Every agent climbs the advantage of the scheme's weighted sum, judged by one critic."""

    def make_critics(self, inputs: int) -> Mlps:
        """One network with a value for each objective."""
        return Mlps(1, inputs, AGENTS, self.generator)

    def values(self, rows: Tensor) -> Tensor:
        """See `Learner.values`."""
        return self.critics(rows)[0]

    def pursued(self, gain: Tensor, weights: Tensor) -> Tensor:
        """See `Learner.pursued`."""
        team = (gain * weights).sum(-1)
        return team.expand(AGENTS, -1)


def standardised(gain: Tensor, say: Tensor) -> Tensor:
    """Advantages [N, R] of mean zero and deviation one over the rows where the agent has a say."""
    count = say.sum(dim=1, keepdim=True).clamp(min=1.0)
    mean = (gain * say).sum(dim=1, keepdim=True) / count
    variance = ((gain - mean) ** 2 * say).sum(dim=1, keepdim=True) / count
    return (gain - mean) * say / (variance.sqrt() + 1e-6)
