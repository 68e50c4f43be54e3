"""Round robin: every site the same share of every class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.schedulers.base import Observation, Scheduler, plan_for


@dataclass
class RoundRobin(Scheduler):
    """Turns by site, whatever its grid, weather or distance."""

    chance: ClassVar[bool] = False
    name: str = "round_robin"
    target_utilisation: float = Field(0.75, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        sites = len(observation.world.sites)
        shape = (1, *observation.world.class_shape, sites)
        return plan_for(observation, np.full(shape, 1.0 / sites), self.target_utilisation)
