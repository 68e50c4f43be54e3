"""Greedy schedulers: fill the sites that are best by one objective, or by a weighted sum."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.fill import fill_by_cost


@dataclass
class CarbonGreedy(Scheduler):
    """Everything to the cleanest sites that have room."""

    name: str = "carbon_greedy"
    target_utilisation: float = Field(0.8, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        cost = np.broadcast_to(carbon_g_per_kwh(forecast)[0], world.constants.rtt_s.shape)
        routing = fill_by_cost(world, cost, forecast.arrival_rate_per_s, self.target_utilisation)
        return plan_for(observation, routing, self.target_utilisation)


@dataclass
class WeightedGreedy(Scheduler):
    """Sites by the weighted sum of the four objectives, each relative to its mean over sites."""

    name: str = "weighted_greedy"
    target_utilisation: float = Field(0.75, gt=0, le=1)
    ttft_weight: float = Field(0.25, ge=0)
    carbon_weight: float = Field(0.25, ge=0)
    water_weight: float = Field(0.25, ge=0)
    cost_weight: float = Field(0.25, ge=0)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        rtt_s = world.constants.rtt_s
        cost = (
            self.ttft_weight * rtt_s / rtt_s.mean()
            + self.carbon_weight * relative(carbon_g_per_kwh(forecast)[0])
            + self.water_weight * relative(water_l_per_kwh(forecast)[0])
            + self.cost_weight * relative(price_usd_per_mwh(forecast)[0])
        )
        routing = fill_by_cost(world, cost, forecast.arrival_rate_per_s, self.target_utilisation)
        return plan_for(observation, routing, self.target_utilisation)


def relative(value: np.ndarray) -> np.ndarray:
    """Value over its mean size; prices may be negative, so the size is the mean magnitude."""
    return value / np.abs(value).mean()
