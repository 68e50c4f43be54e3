"""Weighted round robin: every site in proportion to what it can serve."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.loads import site_capacity_per_s


@dataclass
class WeightedRoundRobin(Scheduler):
    """Turns by capacity: with equal sites this is round robin."""

    chance: ClassVar[bool] = False
    name: str = "weighted_round_robin"
    target_utilisation: float = Field(0.75, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world = observation.world
        capacity = np.moveaxis(site_capacity_per_s(world), 0, -1)  # [M, S, D]
        share = capacity / capacity.sum(axis=-1, keepdims=True)
        routing = np.broadcast_to(share, (1, len(world.origins), *share.shape)).copy()
        return plan_for(observation, routing, self.target_utilisation)
