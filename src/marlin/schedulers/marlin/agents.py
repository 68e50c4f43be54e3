"""Four soft actor-critic agents, one per objective, updated together.

One actor serves all four: it is told which agent it is, and its features are modulated by that
identity (FiLM). Each agent has its own pair of critics, stacked in one tensor, and learns from rows
of its own. Axes: N agents, R rows of a batch, F state, A action.
Sources: Haarnoja et al. (2018), Soft Actor-Critic Algorithms and Applications; Perez et al.
(2018), FiLM: Visual Reasoning with a General Conditioning Layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from marlin.fleet.contract import OBJECTIVES
from marlin.schedulers.learning.networks import Mlps, follow, pack, seeded, set_rate, unpack
from marlin.schedulers.marlin.codec import squashed

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin

AGENTS = len(OBJECTIVES)
LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0
START_TEMPERATURE = 0.1
FILM_GAIN = 0.5
GRADIENT_LIMIT = 1.0  # norm, of each critic


class Actor(nn.Module):
    """Gaussian policy, squashed to (-1, 1), for every agent's identity."""

    def __init__(self, states: int, actions: int, width: int, film: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(states + AGENTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.film = nn.ParameterList()
        if film:
            self.film.extend(nn.Parameter(torch.empty(AGENTS, 1, width)) for _ in range(2))
            for parameter in self.film:
                nn.init.xavier_normal_(parameter[:, 0], gain=FILM_GAIN)
        self.mean = nn.Linear(width, actions)
        self.log_std = nn.Linear(width, actions)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before squashing, [N, R, A], from states [N, R, F]."""
        identity = torch.eye(AGENTS)[:, None].expand(AGENTS, state.shape[1], AGENTS)
        features = self.trunk(torch.cat([state, identity], dim=-1))
        if self.film:
            scale, shift = self.film
            features = torch.relu(features * (1.0 + scale) + shift)
        return self.mean(features), self.log_std(features).clamp(LOG_STD_LOW, LOG_STD_HIGH)

    def best(self, state: Tensor) -> Tensor:
        """What each agent proposes in states [N, R, F], before `squashed`: [N, R, A]."""
        return torch.tanh(self(state)[0])

    def sample(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What each agent tries [N, R, A], before `squashed`, and its log-density [N, R]."""
        mean, log_std = self(state)
        noise = torch.randn(mean.shape, generator=generator)
        latent = mean + log_std.exp() * noise
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(x)^2), written so that it cannot overflow
        squash = 2.0 * (math.log(2.0) - latent - nn.functional.softplus(-2.0 * latent))
        return torch.tanh(latent), (density - squash).sum(-1)


@dataclass(frozen=True)
class Batch:
    """Transitions: rows of its own for every agent, whoever proposed what was done."""

    state: Tensor  # [N, R, F]
    action: Tensor  # [N, R, A]
    reward: Tensor  # [N, R]
    next_state: Tensor  # [N, R, F]
    weight: Tensor  # [N, R] importance


def twins(critics: Mlps, state: Tensor, action: Tensor) -> Tensor:
    """Values [N, 2, R] by both critics of each agent, of states [N, R, F] and actions [N, R, A]."""
    rows = torch.cat([state, action], dim=-1)
    return critics(rows.repeat_interleave(2, dim=0)).reshape(AGENTS, 2, -1)


def lower(critics: Mlps, state: Tensor, action: Tensor) -> Tensor:
    """The smaller of the twins, [N, R]."""
    return twins(critics, state, action).amin(dim=1)


class Learners:
    """Networks, slow copies, temperatures and optimisers of the four agents, and the running means
    that their rewards stand over.
    """

    def __init__(self, options: Marlin, states: int, actions: int, sites: int, seed: int) -> None:
        self.options, self.sites = options, sites
        self.generator = seeded(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(states, actions, options.actor_width, options.film)
        size, width = states + actions, options.critic_width
        self.critics = Mlps(2 * AGENTS, size, 1, self.generator, width=width)
        self.targets = Mlps(2 * AGENTS, size, 1, self.generator, width=width)
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_temperature = torch.full(
            (AGENTS,), math.log(START_TEMPERATURE), requires_grad=True
        )
        self.target_entropy = options.target_entropy * actions
        self.mean: np.ndarray | None = None
        self._actor_step = torch.optim.Adam(self.actor.parameters(), options.actor_rate)
        self._critic_step = torch.optim.Adam(self.critics.parameters(), options.critic_rate)
        self._heat_step = torch.optim.Adam([self.log_temperature], options.temperature_rate)

    def propose(self, state: Tensor, explore: bool) -> Tensor:
        """Actions [B, N, A] of all agents in states [B, F]: tries, or what they think best."""
        rows = state.expand(AGENTS, *state.shape)
        with torch.no_grad():
            if explore:
                latent = self.actor.sample(rows, self.generator)[0]
            else:
                latent = self.actor.best(rows)
        return squashed(latent, self.sites).transpose(0, 1)

    def values(self, state: Tensor, actions: Tensor) -> Tensor:
        """Every agent's value [B, N, P] of actions [B, P, A] in states [B, F]."""
        worlds, count, size = actions.shape
        rows = state[:, None].expand(worlds, count, -1).reshape(1, worlds * count, -1)
        actions = actions.reshape(1, worlds * count, size)
        values = lower(self.critics, *(part.expand(AGENTS, -1, -1) for part in (rows, actions)))
        return values.reshape(AGENTS, worlds, count).transpose(0, 1)

    def update(self, batch: Batch) -> Tensor:
        """One step of critics, actor and temperatures; returns the TD error of each row [N, R]."""
        error = self._update_critics(batch)
        entropy = self._update_actor(batch)
        loss = (self.log_temperature * (entropy - self.target_entropy).detach()).sum()
        self._heat_step.zero_grad()
        loss.backward()
        self._heat_step.step()
        follow(self.targets, self.critics, self.options.target_rate)
        return error

    def slow_down(self, pace: float) -> None:
        """Learn at `pace` times the rates that the options name."""
        options = self.options
        for step, rate in (
            (self._actor_step, options.actor_rate),
            (self._critic_step, options.critic_rate),
            (self._heat_step, options.temperature_rate),
        ):
            set_rate([step], pace * rate)

    def _update_critics(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            latent, density = self.actor.sample(batch.next_state, self.generator)
            value = lower(self.targets, batch.next_state, squashed(latent, self.sites))
            soft = value - self.log_temperature.exp()[:, None] * density
            goal = batch.reward + self.options.discount * soft
        error = twins(self.critics, batch.state, batch.action) - goal[:, None]
        loss = (batch.weight[:, None] * error**2).mean(dim=-1).sum()
        self._critic_step.zero_grad()
        loss.backward()
        clip_each(self.critics, GRADIENT_LIMIT)
        self._critic_step.step()
        return error.detach().abs().mean(dim=1)

    def _update_actor(self, batch: Batch) -> Tensor:
        """Returns the entropy estimate of each agent [N]."""
        latent, density = self.actor.sample(batch.state, self.generator)
        value = lower(self.critics, batch.state, squashed(latent, self.sites))
        heat = self.log_temperature.exp().detach()[:, None]
        loss = (heat * density - value).mean(dim=-1).sum()
        parameters = list(self.actor.parameters())
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = slope
        self._actor_step.step()
        return -density.mean(dim=-1).detach()

    def pack(self) -> dict[str, np.ndarray]:
        """Parameters of actor and critics, temperatures and running means, by name."""
        named = pack({"actor": self.actor, "critics": self.critics})
        named["log_temperature"] = self.log_temperature.detach().numpy().copy()
        return named | ({} if self.mean is None else {"mean": self.mean.copy()})

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave; slow copies start level with the critics."""
        unpack({"actor": self.actor, "critics": self.critics}, named)
        self.targets.load_state_dict(self.critics.state_dict())
        with torch.no_grad():
            self.log_temperature.copy_(torch.as_tensor(named["log_temperature"]))
        self.mean = named.get("mean")

    def transfer(self, named: dict[str, np.ndarray]) -> list[str]:
        """Take the layers of a policy for another fleet whose shapes agree; returns their names.

        Layers that see or say something of every site keep what they have.
        """
        own = self.pack()
        taken = [
            name
            for name, value in own.items()
            if name.startswith(("actor.", "critics."))
            and name in named
            and named[name].shape == value.shape
        ]
        self.unpack(own | {name: named[name] for name in taken})
        return taken


def clip_each(networks: Mlps, limit: float) -> None:
    """Cut the gradient of each of the networks at norm `limit`, so that none shrinks another's."""
    slopes = [p.grad for p in networks.parameters() if p.grad is not None]
    norm = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()
    scale = (limit / norm.clamp_min(1e-12)).clamp_max(1.0)
    for slope in slopes:
        slope.mul_(scale[:, None, None])
