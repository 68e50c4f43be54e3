"""Four soft actor-critic agents, one per objective, updated together.

One actor serves all four: its trunk is modulated by the agent's identity (FiLM). Each agent has
its own pair of critics, stacked in one tensor. Axes: N agents, R rows of a batch, A action.
Sources: Haarnoja et al. (2018), Soft Actor-Critic Algorithms and Applications; Perez et al.
(2018), FiLM: Visual Reasoning with a General Conditioning Layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

AGENTS = 4
LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0


@dataclass(frozen=True)
class Hyperparameters:
    """Of the learners; the paper's values where they are known."""

    actor_width: int
    critic_width: int
    actor_rate: float
    critic_rate: float
    temperature_rate: float
    discount: float
    target_rate: float
    target_entropy: float  # per number of the action


class Actor(nn.Module):
    """Gaussian policy, squashed to [-1, 1], for every agent's identity."""

    def __init__(self, states: int, actions: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(states, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.scale = nn.Parameter(torch.empty(AGENTS, width))
        self.shift = nn.Parameter(torch.empty(AGENTS, width))
        nn.init.xavier_normal_(self.scale, gain=0.5)
        nn.init.xavier_normal_(self.shift, gain=0.5)
        self.mean = nn.Linear(width, actions)
        self.log_std = nn.Linear(width, actions)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before squashing, [N, R, A], from states [R, F]."""
        features = self.trunk(state)[None]
        features = torch.relu(features * (1.0 + self.scale[:, None]) + self.shift[:, None])
        return self.mean(features), self.log_std(features).clamp(LOG_STD_LOW, LOG_STD_HIGH)

    def best(self, state: Tensor) -> Tensor:
        """Deterministic proposals [N, R, A]."""
        return torch.tanh(self(state)[0])

    def sample(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sampled actions [N, R, A] and their log-density [N, R]."""
        mean, log_std = self(state)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        latent = mean + log_std.exp() * noise
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(x)^2), written so that it cannot overflow
        squash = 2.0 * (math.log(2.0) - latent - nn.functional.softplus(-2.0 * latent))
        return torch.tanh(latent), (density - squash).sum(-1)


class Critics(nn.Module):
    """Twin critics of every agent: 2N small networks in stacked tensors."""

    def __init__(self, states: int, actions: int, width: int) -> None:
        super().__init__()
        sizes = (states + actions, width, width, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = 1.0 / math.sqrt(fan_in)
            weight = torch.empty(2 * AGENTS, fan_in, fan_out).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(2 * AGENTS, 1, fan_out)))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """Values [N, 2, R] of states [R, F] and actions [R, A] or each agent's own [N, R, A]."""
        rows = state.shape[0]
        state = state.expand(AGENTS, rows, -1)
        own = torch.cat([state, action.expand(AGENTS, rows, -1)], dim=-1)
        hidden = own.repeat_interleave(2, dim=0)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = torch.relu(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(self.biases[-1], hidden, self.weights[-1]).reshape(AGENTS, 2, rows)

    def lower(self, state: Tensor, action: Tensor) -> Tensor:
        """The smaller of the twins, [N, R]."""
        return self(state, action).amin(dim=1)


@dataclass(frozen=True)
class Batch:
    """Transitions: every agent's reward is known for every action, whoever proposed it."""

    state: Tensor  # [R, F]
    action: Tensor  # [R, A]
    reward: Tensor  # [R, N]
    next_state: Tensor  # [R, F]
    weight: Tensor  # [R] importance


class Learners:
    """Networks, targets, temperatures and optimisers of the four agents."""

    def __init__(self, states: int, actions: int, options: Hyperparameters, seed: int) -> None:
        self.options = options
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(states, actions, options.actor_width)
            self.critics = Critics(states, actions, options.critic_width)
            self.targets = Critics(states, actions, options.critic_width)
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_temperature = torch.full((AGENTS,), math.log(0.1), requires_grad=True)
        self.target_entropy = options.target_entropy * actions
        self._actor_step = torch.optim.Adam(self.actor.parameters(), options.actor_rate)
        self._critic_step = torch.optim.Adam(self.critics.parameters(), options.critic_rate)
        self._heat_step = torch.optim.Adam([self.log_temperature], options.temperature_rate)

    def values(self, state: Tensor, actions: Tensor) -> Tensor:
        """Every agent's value [B, N, P] of actions [B, P, A] in states [B, F]."""
        worlds, count, size = actions.shape
        rows = state[:, None].expand(worlds, count, -1).reshape(worlds * count, -1)
        values = self.critics.lower(rows, actions.reshape(worlds * count, size))
        return values.reshape(AGENTS, worlds, count).transpose(0, 1)

    def update(self, batch: Batch) -> Tensor:
        """One step of critics, actor and temperatures; returns the TD error of each row [R]."""
        error = self._update_critics(batch)
        entropy = self._update_actor(batch)
        loss = (self.log_temperature * (entropy - self.target_entropy).detach()).sum()
        self._heat_step.zero_grad()
        loss.backward()
        self._heat_step.step()
        with torch.no_grad():
            for target, source in zip(
                self.targets.parameters(), self.critics.parameters(), strict=True
            ):
                target.lerp_(source, self.options.target_rate)
        return error

    def _update_critics(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            action, density = self.actor.sample(batch.next_state, self.generator)
            value = self.targets.lower(batch.next_state, action)
            soft = value - self.log_temperature.exp()[:, None] * density
            goal = batch.reward.T + self.options.discount * soft  # [N, R]
        error = self.critics(batch.state, batch.action) - goal[:, None]
        loss = (batch.weight * error**2).mean(dim=-1).sum()
        self._critic_step.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.critics.parameters(), 1.0)
        self._critic_step.step()
        return error.detach().abs().mean(dim=(0, 1))

    def _update_actor(self, batch: Batch) -> Tensor:
        """Returns the entropy estimate of each agent [N]."""
        action, density = self.actor.sample(batch.state, self.generator)
        value = self.critics.lower(batch.state, action)
        heat = self.log_temperature.exp().detach()[:, None]
        loss = (heat * density - value).mean(dim=-1).sum()
        parameters = list(self.actor.parameters())
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = slope
        self._actor_step.step()
        return -density.mean(dim=-1).detach()
