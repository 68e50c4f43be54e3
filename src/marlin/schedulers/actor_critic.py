"""Advantage actor-critic over a list of greedy plans, and the form MARLIN was compared with.

Source: Mnih et al. (2016), Asynchronous Methods for Deep Reinforcement Learning; worlds in step
instead of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import World
from marlin.schedulers.base import Observation
from marlin.schedulers.learning.consolidation import Consolidation, Epoch
from marlin.schedulers.learning.features import observe, state_size
from marlin.schedulers.learning.networks import (
    Mlps,
    descend,
    joined,
    mixed,
    pack,
    seeded,
    set_rate,
    tensor,
    unpack,
)
from marlin.schedulers.learning.practice import Practice, Transition
from marlin.schedulers.learning.presets import presets, start_logits
from marlin.schedulers.learning.returns import advantages, td_target
from marlin.schedulers.learning.scheduler import LearnedScheduler

OBJECTIVE_COUNT = len(OBJECTIVES)
AS_RUN_WIDTH = 128


@dataclass
class ActorCritic(LearnedScheduler):
    """Settings of the method."""

    name: str = "actor_critic"
    rate: float = Field(2e-3, gt=0, le=1, description="at first; falls to zero")
    discount: float = Field(0.8, ge=0, lt=1)
    trace: float = Field(1.0, ge=0, le=1, description="lambda; 1 is the n-step return")
    rollout: int = Field(5, ge=1, le=96, description="epochs of all worlds between updates")
    entropy: float = Field(0.02, ge=0)
    value_weight: float = Field(0.5, ge=0)
    gradient_limit: float = Field(0.5, gt=0)
    drop_penalty: float = Field(5.0, ge=0)

    def learner(self, world: World, seed: int) -> Learner:
        """See `LearnedScheduler.learner`."""
        return Learner(self, state_size(world) + OBJECTIVE_COUNT, seed)

    @property
    def stride(self) -> int:
        """See `LearnedScheduler.stride`."""
        return self.rollout

    def practise(
        self, learner: Learner, practice: Practice, rng: np.random.Generator
    ) -> Iterator[None]:
        """Act for `rollout` epochs, then one step on all of them."""
        while practice.affords(self.stride):
            chosen, walked = [], []
            for _ in range(self.stride):
                chosen.append(learner.draw(practice.seen, practice.weights))
                walked.append(practice.step(learner.presets[chosen[-1]]))
            set_rate([learner.step], practice.left * self.rate)
            learner.update(np.stack(chosen), walked)
            yield


class Learner:
    """A policy over presets and a critic of every objective."""

    def __init__(self, options: ActorCritic, inputs: int, seed: int) -> None:
        self.options, self.presets = options, presets()
        self.generator = seeded(seed)
        outputs = OBJECTIVE_COUNT * len(self.presets)
        self.actor = Mlps(1, inputs, outputs, self.generator, torch.tanh, last=0.01)
        self.critic = Mlps(1, inputs, OBJECTIVE_COUNT, self.generator, torch.tanh)
        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.step = torch.optim.Adam(parameters, options.rate)

    def log_chances(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the presets, [R, P]."""
        weights = rows[:, -OBJECTIVE_COUNT:]
        start = tensor(start_logits(weights.numpy()))
        return torch.log_softmax(start + mixed(self.actor(rows)[0], weights), dim=-1)

    def act(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Actions [B, A] of the likeliest presets."""
        with torch.no_grad():
            return self.presets[self.log_chances(joined(seen, weights)).argmax(dim=1).numpy()]

    def draw(self, seen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Presets [B] drawn from the policy."""
        with torch.no_grad():
            chances = self.log_chances(joined(seen, weights)).exp()
            return torch.multinomial(chances, 1, generator=self.generator)[:, 0].numpy()

    def update(self, chosen: np.ndarray, walked: list[Transition]) -> None:
        """One step on presets [T, B] and what they led to."""
        options = self.options
        weights = np.concatenate([t.weights for t in walked])
        rows = joined(np.concatenate([t.seen for t in walked]), weights)
        after = joined(np.concatenate([t.after for t in walked]), weights)
        value = self.critic(rows)[0]
        shape = (*chosen.shape, OBJECTIVE_COUNT)
        with torch.no_grad():
            next_value = self.critic(after)[0].reshape(shape).numpy()
            gain = advantages(
                np.stack([t.reward for t in walked]),
                value.reshape(shape).numpy(),
                next_value,
                np.stack([t.moved for t in walked])[..., None],
                options.discount,
                options.trace,
            )
        gain = tensor(gain.reshape(-1, OBJECTIVE_COUNT))
        better = (gain * tensor(weights)).sum(-1)
        better = better / (better.std() + 1e-6)
        log_chances = self.log_chances(rows)
        taken = log_chances.gather(1, torch.as_tensor(chosen.reshape(-1, 1)))[:, 0]
        spread = -(log_chances.exp() * log_chances).sum(-1).mean()
        misjudged = ((value - (gain + value.detach())) ** 2).mean()
        loss = -(taken * better).mean() - options.entropy * spread
        descend(self.step, loss + options.value_weight * misjudged, options.gradient_limit)

    def pack(self) -> dict[str, np.ndarray]:
        """The actor's parameters."""
        return pack({"actor": self.actor})

    def unpack(self, named: dict[str, np.ndarray]) -> None:
        """Take what `pack` gave."""
        unpack({"actor": self.actor}, named)


@dataclass
class ActorCriticAsRun(Consolidation):
    """The action is which site to fill; one step after each epoch on its own outcome alone."""

    name: str = "actor_critic_as_run"
    rate: float = Field(1e-3, gt=0, le=1)
    discount: float = Field(0.99, ge=0, lt=1)
    migration_weight: float = Field(0.1, ge=0, description="USD that a percent migrated counts as")

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Consolidation.reset`."""
        self._generator = seeded(seed)
        sites, inputs = len(world.sites), state_size(world)
        self._actor = Mlps(1, inputs, sites, self._generator, width=AS_RUN_WIDTH, hidden=1)
        self._critic = Mlps(1, inputs, 1, self._generator, width=AS_RUN_WIDTH, hidden=1)
        if learned := self.weights():
            unpack({"actor": self._actor, "critic": self._critic}, learned)
        parameters = [*self._actor.parameters(), *self._critic.parameters()]
        self._step = torch.optim.Adam(parameters, self.rate)
        self._last: tuple[torch.Tensor, int, float] | None = None

    def choose(self, observation: Observation) -> int:
        """Learn from the last epoch, whose successor is now known; then draw from the policy."""
        state = observe(observation.world, observation.state, observation.forecast)
        self._seen = tensor(state)
        if self._last is not None:
            self._update(*self._last, self._seen)
        with torch.no_grad():
            chances = torch.softmax(self._actor(self._seen)[0, 0], dim=0)
        return int(torch.multinomial(chances, 1, generator=self._generator))

    def learn(self, epoch: Epoch) -> None:
        """See `Consolidation.learn`; the step itself waits for the next state."""
        reward = -(epoch.cost_usd + self.migration_weight * 100.0 * epoch.migrated)
        self._last = (self._seen, epoch.site, reward)

    def _update(self, seen: torch.Tensor, site: int, reward: float, after: torch.Tensor) -> None:
        value = self._critic(seen)[0, 0, 0]
        with torch.no_grad():
            goal = td_target(reward, self._critic(after)[0, 0, 0], self.discount)
        error = goal - value
        log_chance = torch.log_softmax(self._actor(seen)[0, 0], dim=0)[site]
        descend(self._step, error**2 - error.detach() * log_chance, math.inf)

    def known(self) -> dict[str, np.ndarray]:
        """See `Consolidation.known`."""
        return pack({"actor": self._actor, "critic": self._critic})
