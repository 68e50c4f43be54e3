"""Greedy schedulers: fill the sites that are best by one objective, or by a weighted sum."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Inputs, Plan
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.fill import fill_by_cost
from marlin.schedulers.loads import class_load, site_full_power_w

FACTORS = {"carbon": carbon_g_per_kwh, "water": water_l_per_kwh, "cost": price_usd_per_mwh}


@dataclass
class Greedy(Scheduler):
    """Everything to the sites with the least of one objective per kWh that have room."""

    name: str
    objective: Literal["carbon", "water", "cost"]
    target_utilisation: float = Field(0.8, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        factor = FACTORS[self.objective](forecast)[0]
        cost = factor * energy_by_origin(world, forecast)
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
        weights = {
            "carbon": self.carbon_weight, "water": self.water_weight, "cost": self.cost_weight,
        }  # fmt: skip
        energy = energy_by_origin(world, forecast)
        cost = self.ttft_weight * relative(rtt_s)
        for objective, weight in weights.items():
            cost = cost + weight * relative(FACTORS[objective](forecast)[0] * energy)
        routing = fill_by_cost(world, cost, forecast.arrival_rate_per_s, self.target_utilisation)
        return plan_for(observation, routing, self.target_utilisation)


def energy_by_origin(world: World, forecast: Inputs) -> np.ndarray:
    """Energy of an origin's demand at each site over its mean over sites, [O, D].

    One everywhere when sites have the same nodes.
    """
    load = class_load(world, forecast.arrival_rate_per_s).sum(axis=(1, 2))
    energy = load * site_full_power_w(world)
    return energy / np.clip(energy.mean(axis=1, keepdims=True), TINY, None)


def relative(value: np.ndarray) -> np.ndarray:
    """Value over its mean size; prices may be negative, so the size is the mean magnitude."""
    return value / np.abs(value).mean()
