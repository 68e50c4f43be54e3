"""Double deep Q-learning over a list of greedy plans, and the form that MARLIN was compared with.

Source: van Hasselt, Guez and Silver (2016), Deep Reinforcement Learning with Double Q-learning. The
networks are in `learning.ddqn`, so that settings are known without the learning stack.
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
from marlin.schedulers.learning.exploration import Perseverance, falling
from marlin.schedulers.learning.features import state_size
from marlin.schedulers.learning.practice import Practice
from marlin.schedulers.learning.replay import Ring
from marlin.schedulers.learning.scheduler import LearnedScheduler

if TYPE_CHECKING:
    from marlin.schedulers.learning.ddqn import Learner


@dataclass
class Ddqn(LearnedScheduler):
    """Settings of the method."""

    name: str = "ddqn"
    rate: float = Field(1e-3, gt=0, le=1, description="at first; falls to zero")
    discount: float = Field(0.8, ge=0, lt=1)
    target_rate: float = Field(0.002, gt=0, le=1, description="of the copy that acts")
    explored: float = Field(0.5, gt=0, le=1, description="of the budget, until epsilon is least")
    epsilon_least: float = Field(0.05, ge=0, le=1)
    spell: float = Field(1.0, ge=1, description="epochs that a trial lasts in the mean")
    batch_size: int = Field(256, ge=8, le=4096)
    capacity: int = Field(50_000, ge=100)
    updates: int = Field(4, ge=0, le=100, description="after each epoch of all worlds")
    gradient_limit: float = Field(10.0, gt=0)
    drop_penalty: float = Field(5.0, ge=0)

    def learner(self, world: World, seed: int) -> Learner:
        """See `LearnedScheduler.learner`."""
        from marlin.schedulers.learning.ddqn import Learner

        return Learner(self, state_size(world) + len(OBJECTIVES), seed)

    def practise(
        self, learner: Learner, practice: Practice, rng: np.random.Generator
    ) -> Iterator[None]:
        """Epsilon-greedy, epsilon falling from one; `updates` steps after each epoch."""
        ring = Ring(self.capacity, practice.seen.shape[1], 1)
        trials = Perseverance(len(practice.seen), len(learner.presets), self.spell, rng)
        while practice.affords(self.stride):
            epsilon = falling(1.0 - practice.left, self.explored, self.epsilon_least)
            chosen = trials.choose(learner.try_out(practice.seen, practice.weights), epsilon)
            ring.add(chosen[:, None], practice.step(learner.presets[chosen]))
            learner.set_rate(practice.left * self.rate)
            for _ in range(self.updates):
                learner.update(ring.draw(self.batch_size, rng))
            yield


@dataclass
class DdqnAsRun(Consolidation):
    """The action is which site to fill; the state is noise, as in the version that was read."""

    name: str = "ddqn_as_run"
    rate: float = Field(1e-3, gt=0, le=1)
    discount: float = Field(0.99, ge=0, lt=1)
    batch_size: int = Field(32, ge=1)
    epsilon_least: float = Field(0.01, ge=0, le=1)
    explored_epochs: int = Field(100, ge=1, description="until epsilon is least, from one")
    copied_every: int = Field(5, ge=1, description="epochs between copies to the target")
    ttft_weight: float = Field(100.0, ge=0, description="USD that a second of TTFT counts as")

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Consolidation.reset`."""
        from marlin.schedulers.learning.ddqn import AsRunLearner

        self._learner = AsRunLearner(self, len(world.sites), seed, self.weights())

    def choose(self, observation: Observation) -> int:
        """Epsilon-greedy, epsilon falling in proportion to the epochs lived through."""
        return self._learner.choose()

    def learn(self, epoch: Epoch) -> None:
        """One step on a batch of past epochs, the target copied now and then."""
        self._learner.learn(epoch.site, -epoch.cost_usd - self.ttft_weight * epoch.ttft_s)

    def known(self) -> dict[str, np.ndarray]:
        """See `Consolidation.known`."""
        return self._learner.pack()
