"""Multi-agent PPO: four agents, one critic for all, and the reward of the team.

Source: Yu et al. (2022), The Surprising Effectiveness of PPO in Cooperative, Multi-Agent Games.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from marlin.fleet.world import World
from marlin.schedulers.learning import ppo
from marlin.schedulers.learning.features import state_size
from marlin.schedulers.learning.networks import Mlps


@dataclass
class Mappo(ppo.Ppo):
    """Settings of the method."""

    name: str = "mappo"

    def learner(self, world: World, seed: int) -> Learner:
        """See `LearnedScheduler.learner`."""
        return Learner(self, state_size(world) + ppo.AGENTS, seed)


class Learner(ppo.Learner):
    """Every agent climbs the advantage of the scheme's weighted sum, judged by one critic."""

    def make_critics(self, inputs: int) -> Mlps:
        """One network with a value for each objective."""
        return Mlps(1, inputs, ppo.AGENTS, self.generator)

    def values(self, rows: Tensor) -> Tensor:
        """See `ppo.Learner.values`."""
        return self.critics(rows)[0]

    def pursued(self, gain: Tensor, weights: Tensor) -> Tensor:
        """See `ppo.Learner.pursued`."""
        team = (gain * weights).sum(-1)
        return team.expand(ppo.AGENTS, -1)
