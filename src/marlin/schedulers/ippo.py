"""Independent PPO: four agents, each with its own reward and its own critic.

Source: de Witt et al. (2020), Is Independent Learning All You Need in the StarCraft Multi-Agent
Challenge?
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from marlin.fleet.world import World
from marlin.schedulers.learning import ppo
from marlin.schedulers.learning.features import state_size
from marlin.schedulers.learning.networks import Mlps


@dataclass
class Ippo(ppo.Ppo):
    """Settings of the method."""

    name: str = "ippo"

    def learner(self, world: World, seed: int) -> Learner:
        """See `LearnedScheduler.learner`."""
        return Learner(self, state_size(world) + ppo.AGENTS, seed)


class Learner(ppo.Learner):
    """Every agent climbs the advantage of its own objective, judged by a critic of its own."""

    def make_critics(self, inputs: int) -> Mlps:
        """Four networks of one value."""
        return Mlps(ppo.AGENTS, inputs, 1, self.generator)

    def values(self, rows: Tensor) -> Tensor:
        """See `ppo.Learner.values`."""
        return self.critics(rows)[..., 0].T

    def pursued(self, gain: Tensor, weights: Tensor) -> Tensor:
        """See `ppo.Learner.pursued`."""
        return gain.T
