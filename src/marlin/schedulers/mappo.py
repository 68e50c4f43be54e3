"""Multi-agent PPO: four agents, one critic for all, and the reward of the team.

Source: Yu et al. (2022), The Surprising Effectiveness of PPO in Cooperative, Multi-Agent Games.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import World
from marlin.schedulers.learning.features import state_size
from marlin.schedulers.learning.proposals import Ppo

if TYPE_CHECKING:
    from marlin.schedulers.learning.ppo import Central


@dataclass
class Mappo(Ppo):
    """Settings of the method."""

    name: str = "mappo"

    def learner(self, world: World, seed: int) -> Central:
        """See `LearnedScheduler.learner`."""
        from marlin.schedulers.learning.ppo import Central

        return Central(self, state_size(world) + len(OBJECTIVES), seed)
