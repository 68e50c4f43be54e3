"""Soft actor-critic on the weighted sum of rewards: one network for every weighting.

Sources: Haarnoja et al. (2018), Soft Actor-Critic Algorithms and Applications; the weights as an
input and rows re-weighted at each draw as in Abels et al. (2019), Dynamic Weights in
Multi-Objective Deep Reinforcement Learning. The networks are in `learning.sac`, so that settings
are known without the learning stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import World
from marlin.schedulers.learning.features import state_size
from marlin.schedulers.learning.practice import Practice
from marlin.schedulers.learning.ranking import ACTION_SIZE
from marlin.schedulers.learning.replay import Ring
from marlin.schedulers.learning.scheduler import LearnedScheduler

if TYPE_CHECKING:
    from marlin.schedulers.learning.sac import Learner


@dataclass
class SacScalar(LearnedScheduler):
    """Settings of the method."""

    name: str = "sac_scalar"
    rate: float = Field(1e-3, gt=0, le=1, description="of all parts at first; falls to zero")
    warm_up: float = Field(0.1, ge=0, le=1, description="of the budget, for the critics alone")
    discount: float = Field(0.8, ge=0, lt=1)
    target_rate: float = Field(0.01, gt=0, le=1)
    target_entropy: float = Field(-2.0, le=2, description="per number of the action")
    batch_size: int = Field(256, ge=8, le=4096)
    capacity: int = Field(50_000, ge=100)
    updates: int = Field(4, ge=0, le=100, description="after each epoch of all worlds")
    gradient_limit: float = Field(1.0, gt=0)
    drop_penalty: float = Field(5.0, ge=0)

    def learner(self, world: World, seed: int) -> Learner:
        """See `LearnedScheduler.learner`."""
        from marlin.schedulers.learning.sac import Learner

        return Learner(self, state_size(world) + len(OBJECTIVES), seed)

    def practise(
        self, learner: Learner, practice: Practice, rng: np.random.Generator
    ) -> Iterator[None]:
        """Explore, remember, learn: `updates` steps after each epoch of all worlds."""
        ring = Ring(self.capacity, practice.seen.shape[1], ACTION_SIZE)
        while practice.affords(self.stride):
            action = learner.explore(practice.seen, practice.weights)
            ring.add(action, practice.step(action))
            learner.set_rate(practice.left * self.rate)
            for _ in range(self.updates):
                batch = ring.draw(self.batch_size, rng)
                learner.update_critics(batch)
                if practice.left < 1.0 - self.warm_up:
                    learner.update_actor(batch)
            yield
