"""WaterWise: carbon and water of each class weighed together, with a memory of what sites were.

Source: WaterWise (PPoPP 2025). Adapted: classes of requests are split over sites by the linear
relaxation of its assignment problem; nothing is deferred, because requests are interactive.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.factors import carbon_g_per_kwh, water_l_per_kwh
from marlin.schedulers.loads import backlog_load, class_load, site_full_power_w
from marlin.schedulers.transport import transport


@dataclass
class WaterWise(Scheduler):
    """Least weighted sum of carbon and water, each over its maximum, plus their recent mean."""

    chance: ClassVar[bool] = False
    name: str = "waterwise"
    target_utilisation: float = Field(0.8, gt=0, le=1)
    carbon_weight: float = Field(0.5, ge=0)
    water_weight: float = Field(0.5, ge=0)
    reference_weight: float = Field(0.1, ge=0)
    window: int = Field(10, ge=1, description="epochs that the memory spans")
    delay_tolerance_s: float = Field(0.25, gt=0, description="round trip that a user accepts")

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        self._history: deque[np.ndarray] = deque(maxlen=self.window)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        carbon, water = carbon_g_per_kwh(forecast)[0], water_l_per_kwh(forecast)[0]
        footprint = self.carbon_weight * carbon / carbon.max()
        footprint += self.water_weight * water / water.max()
        self._history.append(footprint)
        score = footprint + self.reference_weight * np.mean(list(self._history), axis=0)
        load = class_load(world, forecast.arrival_rate_per_s)  # [O, M, S, D]
        near = world.constants.rtt_s <= self.delay_tolerance_s
        allowed = np.broadcast_to(near[:, None, None, :], load.shape)
        flat = load.reshape(-1, load.shape[-1])
        room = np.clip(self.target_utilisation - backlog_load(world, observation.state), 0, None)
        cost = score * flat * site_full_power_w(world)
        shares = transport(cost, flat, room, allowed.reshape(flat.shape))
        return plan_for(observation, shares.reshape(1, *load.shape), self.target_utilisation)
