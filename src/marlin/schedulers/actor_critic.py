"""Advantage actor-critic over a list of greedy plans, and the form MARLIN was compared with.

Source: Mnih et al. (2016), Asynchronous Methods for Deep Reinforcement Learning; worlds in step
instead of threads. The networks are in `learning.actor_critic`, so that settings are known without
the learning stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import World
from marlin.schedulers.base import Observation
from marlin.schedulers.learning.consolidation import Consolidation, Epoch
from marlin.schedulers.learning.features import observe, state_size
from marlin.schedulers.learning.practice import Practice
from marlin.schedulers.learning.scheduler import LearnedScheduler

if TYPE_CHECKING:
    from marlin.schedulers.learning.actor_critic import Learner


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
        from marlin.schedulers.learning.actor_critic import Learner

        return Learner(self, state_size(world) + len(OBJECTIVES), seed)

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
            learner.set_rate(practice.left * self.rate)
            learner.update(np.stack(chosen), walked)
            yield


@dataclass
class ActorCriticAsRun(Consolidation):
    """The action is which site to fill; one step after each epoch on its own outcome alone."""

    name: str = "actor_critic_as_run"
    rate: float = Field(1e-3, gt=0, le=1)
    discount: float = Field(0.99, ge=0, lt=1)
    migration_weight: float = Field(0.1, ge=0, description="USD that a percent migrated counts as")

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Consolidation.reset`."""
        from marlin.schedulers.learning.actor_critic import AsRunLearner

        sites, inputs = len(world.sites), state_size(world)
        self._learner = AsRunLearner(self, inputs, sites, seed, self.weights())

    def choose(self, observation: Observation) -> int:
        """Learn from the last epoch, whose successor is now known; then draw from the policy."""
        seen = observe(observation.world, observation.state, observation.forecast)
        return self._learner.choose(seen)

    def learn(self, epoch: Epoch) -> None:
        """See `Consolidation.learn`; the step itself waits for the next state."""
        reward = -(epoch.cost_usd + self.migration_weight * 100.0 * epoch.migrated)
        self._learner.remember(epoch.site, reward)

    def known(self) -> dict[str, np.ndarray]:
        """See `Consolidation.known`."""
        return self._learner.pack()
