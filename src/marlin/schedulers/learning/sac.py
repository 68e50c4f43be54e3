"""The networks of soft actor-critic on a weighted sum of rewards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import OBJECTIVES
from marlin.schedulers.learning.networks import (
    Mlps,
    descend,
    follow,
    joined,
    log_density,
    log_squash,
    mixed,
    pack,
    seeded,
    set_rate,
    tensor,
    unpack,
)
from marlin.schedulers.learning.ranking import ACTION_SIZE, start_latent
from marlin.schedulers.learning.replay import Draw
from marlin.schedulers.learning.returns import td_target

if TYPE_CHECKING:
    from marlin.schedulers.sac_scalar import SacScalar

OBJECTIVE_COUNT = len(OBJECTIVES)
START_LOG_STD, LOG_STD_LOW, LOG_STD_HIGH = -1.5, -5.0, 1.0
START_TEMPERATURE = 0.01


class Learner:
    """Actor, twin critics, their slow copies and the temperature."""

    def __init__(self, options: SacScalar, inputs: int, seed: int) -> None:
        self.options, self.generator = options, seeded(seed)
        self.actor = Mlps(1, inputs, OBJECTIVE_COUNT * 2 * ACTION_SIZE, self.generator, last=0.1)
        self.critics = Mlps(2, inputs + ACTION_SIZE, OBJECTIVE_COUNT, self.generator)
        self.targets = Mlps(2, inputs + ACTION_SIZE, OBJECTIVE_COUNT, self.generator)
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_temperature = torch.full((), math.log(START_TEMPERATURE), requires_grad=True)
        self._actor_step = torch.optim.Adam(self.actor.parameters(), options.rate)
        self._critic_step = torch.optim.Adam(self.critics.parameters(), options.rate)
        self._heat_step = torch.optim.Adam([self.log_temperature], options.rate)

    def act(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The middle of the policy, [B, A]."""
        with torch.no_grad():
            return torch.tanh(self.policy(joined(seen, weights))[0]).numpy().astype(float)

    def explore(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sampled actions [B, A]."""
        with torch.no_grad():
            return self.sample(joined(seen, weights))[0].numpy().astype(float)

    def set_rate(self, rate: float) -> None:
        """Learn at `rate` from here on, all parts."""
        set_rate((self._actor_step, self._critic_step, self._heat_step), rate)

    def policy(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the action before squashing, [R, A] each."""
        weights = rows[:, -OBJECTIVE_COUNT:]
        mean, log_std = mixed(self.actor(rows)[0], weights).chunk(2, dim=-1)
        mean = mean + tensor(start_latent(weights.numpy()))
        return mean, (START_LOG_STD + log_std).clamp(LOG_STD_LOW, LOG_STD_HIGH)

    def sample(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [R, A] and their log-density [R]."""
        mean, log_std = self.policy(rows)
        noise = torch.randn(mean.shape, generator=self.generator)
        latent = mean + log_std.exp() * noise
        return torch.tanh(latent), log_density(latent, mean, log_std) - log_squash(latent)

    def update_critics(self, batch: Draw) -> None:
        """One step towards soft targets, for each objective by itself; then the slow copies."""
        weights, options = tensor(batch.weights), self.options
        rows, after = joined(batch.seen, batch.weights), joined(batch.after, batch.weights)
        with torch.no_grad():
            action, density = self.sample(after)
            value = lower(self.targets, after, action, weights)
            soft = value - self.log_temperature.exp() * density[:, None]
            goal = td_target(tensor(batch.reward), soft, options.discount)
        guess = self.critics(torch.cat([rows, tensor(batch.action)], dim=-1))
        loss = ((guess - goal) ** 2).mean(dim=1).sum()
        descend(self._critic_step, loss, options.gradient_limit)
        follow(self.targets, self.critics, options.target_rate)

    def update_actor(self, batch: Draw) -> None:
        """One step of the actor up the weighted soft value, and of the temperature."""
        rows, weights = joined(batch.seen, batch.weights), tensor(batch.weights)
        limit, heat = self.options.gradient_limit, self.log_temperature.exp().detach()
        action, density = self.sample(rows)
        value = (lower(self.critics, rows, action, weights) * weights).sum(-1)
        descend(self._actor_step, (heat * density - value).mean(), limit)
        surplus = -density.detach().mean() - self.options.target_entropy * ACTION_SIZE
        descend(self._heat_step, self.log_temperature * surplus, limit)

    def pack(self) -> dict[str, np.ndarray]:
        """The actor's parameters: all that a decision needs."""
        return pack({"actor": self.actor})

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave."""
        unpack({"actor": self.actor}, named)


def lower(critics: Mlps, rows: Tensor, action: Tensor, weights: Tensor) -> Tensor:
    """Values by objective [R, N] of the twin whose weighted sum is the smaller."""
    first, second = critics(torch.cat([rows, action], dim=-1))
    chosen = ((first - second) * weights).sum(-1, keepdim=True) < 0.0
    return torch.where(chosen, first, second)
