"""Independent PPO: four agents, each with its own reward and its own critic.

Source: de Witt et al. (2020), Is Independent Learning All You Need in the StarCraft Multi-Agent
Challenge?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import World
from marlin.schedulers.learning.features import state_size
from marlin.schedulers.learning.proposals import Ppo

if TYPE_CHECKING:
    from marlin.schedulers.learning.ppo import Independent


@dataclass
class Ippo(Ppo):
    """Settings of the method."""

    name: str = "ippo"

    def learner(self, world: World, seed: int) -> Independent:
        """See `LearnedScheduler.learner`."""
        from marlin.schedulers.learning.ppo import Independent

        return Independent(self, state_size(world) + len(OBJECTIVES), seed)
