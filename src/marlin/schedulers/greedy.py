"""Greedy schedulers: fill the sites that are best by one objective, or by a weighted sum.

How full sites and nodes may get is tried out on the forecast, epoch by epoch: the fuller, the less
is spent on idle nodes, until new nodes that still boot leave requests waiting.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Inputs, Plan, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.fill import fill_by_cost
from marlin.schedulers.loads import class_load, site_full_power_w
from marlin.schedulers.schemes import SCHEMES, scheme

FACTORS = {"carbon": carbon_g_per_kwh, "water": water_l_per_kwh, "cost": price_usd_per_mwh}
TARGETS = (0.3, 0.45, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass
class Greedy(Scheduler):
    """Everything to the sites with the least of one objective per kWh that have room."""

    chance: ClassVar[bool] = False
    name: str
    objective: Literal["carbon", "water", "cost"]
    targets: tuple[float, ...] = Field(TARGETS, min_length=1, description="utilisations tried")

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        forecast = observation.forecast
        factor = FACTORS[self.objective](forecast)[0]
        cost = factor * energy_by_origin(observation.world, forecast)
        return best_filled(observation, cost, self.targets, scheme(self.objective))


@dataclass
class WeightedGreedy(Scheduler):
    """Sites by the weighted sum of the four objectives, each relative to its mean over sites.

    The weights are those of the balanced policy; its variants have those of their scheme.
    """

    chance: ClassVar[bool] = False
    name: str = "weighted_greedy"
    targets: tuple[float, ...] = Field(TARGETS, min_length=1, description="utilisations tried")
    ttft_weight: float = Field(0.25, ge=0)
    carbon_weight: float = Field(0.25, ge=0)
    water_weight: float = Field(0.25, ge=0)
    cost_weight: float = Field(0.25, ge=0)

    def variants(self) -> tuple[str, ...]:
        """See `Scheduler.variants`."""
        return tuple(SCHEMES)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        own = (self.ttft_weight, self.carbon_weight, self.water_weight, self.cost_weight)
        self._weights = scheme(variant) if variant else np.array(own)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        energy = energy_by_origin(world, forecast)
        cost = self._weights[0] * relative(world.constants.rtt_s)
        for weight, factor in zip(self._weights[1:], FACTORS.values(), strict=True):
            cost = cost + weight * relative(factor(forecast)[0] * energy)
        return best_filled(observation, cost, self.targets, self._weights)


def best_filled(
    observation: Observation, cost: np.ndarray, targets: tuple[float, ...], weights: np.ndarray
) -> Plan:
    """The best plan that fills sites in the order of `cost` [O, D], nodes up to one of `targets`.

    Best is what leaves no request waiting if the forecast comes true, and then has the least sum
    of objectives by `weights` [4], each relative to its mean over the targets.
    """
    world, forecast = observation.world, observation.forecast
    demand, ceiling = forecast.arrival_rate_per_s, world.utilisation_ceiling
    # Beyond its ceiling the dispatcher would move a site's requests to others.
    routing = [fill_by_cost(world, cost, demand, min(target, ceiling)) for target in targets]
    plans = sized_plan(
        world,
        np.concatenate(routing),
        np.repeat(demand, len(targets), axis=0),
        np.array(targets)[:, None],
        forecast.available,
    )
    _, outcome = observation.simulate(plans)
    objectives = np.stack(outcome.objectives(), axis=-1)  # [targets, 4]
    score = objectives / np.abs(objectives).mean(axis=0).clip(min=TINY) @ weights
    unserved = np.round((outcome.waiting + outcome.dropped) / outcome.arrived.clip(min=TINY), 9)
    best = np.lexsort((score, unserved))[0]
    return row(plans, slice(best, best + 1))


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
