"""Nearest: each origin to the site with the lowest round-trip time that has room."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.fill import fill_by_cost


@dataclass
class Nearest(Scheduler):
    """Latency-greedy with overflow to the next site."""

    chance: ClassVar[bool] = False
    name: str = "nearest"
    target_utilisation: float = Field(0.65, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world = observation.world
        routing = fill_by_cost(
            world,
            world.constants.rtt_s,
            observation.forecast.arrival_rate_per_s,
            self.target_utilisation,
        )
        return plan_for(observation, routing, self.target_utilisation)
