"""CASPER: servers and routing by an hourly mixed-integer program on carbon, within a latency limit.

Source: CASPER (IGSC 2023): minimise 0.9 carbon + 0.1 servers, each over its maximum; the latency
form weighs them 0.5 and 0.5.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, hstack

from marlin.fleet.contract import Plan
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.factors import carbon_g_per_kwh
from marlin.schedulers.loads import class_load, site_full_power_w
from marlin.schedulers.transport import share_rows


@dataclass
class Casper(Scheduler):
    """Decides once an hour which sites run how many servers and who is served where."""

    chance: ClassVar[bool] = False
    name: str = "casper"
    target_utilisation: float = Field(0.8, gt=0, le=1)
    carbon_weight: float = Field(0.9, ge=0, le=1)
    latency_limit_s: float = Field(0.25, gt=0, description="longest round trip allowed")
    period_s: float = Field(3600.0, gt=0)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        self._routing: np.ndarray | None = None
        self._age_s = 0.0

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        if self._routing is None or self._age_s >= self.period_s:
            self._routing, self._age_s = self._solve(observation), 0.0
        self._age_s += observation.world.epoch_s
        return plan_for(observation, self._routing, self.target_utilisation)

    def _solve(self, observation: Observation) -> np.ndarray:
        """Routing [1, O, M, S, D] of the mixed-integer program; infeasible limits are dropped."""
        world, forecast = observation.world, observation.forecast
        load = class_load(world, forecast.arrival_rate_per_s)
        flat = load.reshape(-1, load.shape[-1])
        near = world.constants.rtt_s <= self.latency_limit_s
        allowed = np.broadcast_to(near[:, None, None, :], load.shape).reshape(flat.shape)
        arguments = (
            flat,
            carbon_g_per_kwh(forecast)[0] * site_full_power_w(world),
            world.constants.nodes.sum(axis=1),
            self.target_utilisation,
            self.carbon_weight,
        )
        shares = servers_and_shares(*arguments, allowed)
        if shares is None:
            shares = servers_and_shares(*arguments, np.ones_like(allowed))
        if shares is None:
            return np.full((1, *load.shape), 1.0 / load.shape[-1])
        return shares.reshape(1, *load.shape)


def servers_and_shares(
    load: np.ndarray, carbon: np.ndarray, servers: np.ndarray, target_utilisation: float,
    carbon_weight: float, allowed: np.ndarray,
) -> np.ndarray | None:  # fmt: skip
    """Shares [K, D] that minimise weighted carbon and servers; None if demand does not fit.

    `load` [K, D] utilisation of a whole site, `carbon` [D] what a full one emits, `servers` [D]
    how many there are, `allowed` [K, D]. A site's load stays within `target_utilisation` of its
    servers in use.
    """
    classes, sites = load.shape
    whole, filled = share_rows(load)
    each = target_utilisation / servers
    used = coo_array((-each, (np.arange(sites), np.arange(sites))))
    none = coo_array((classes, sites))
    worst = (load * carbon).max(axis=1).sum() or 1.0
    cost = np.concatenate(
        [
            carbon_weight * (load * carbon).ravel() / worst,
            np.full(sites, (1.0 - carbon_weight) / servers.sum()),
        ]
    )
    kinds = np.concatenate([np.zeros(classes * sites), np.ones(sites)])
    upper = np.concatenate([allowed.ravel().astype(float), servers])
    result = milp(
        cost,
        integrality=kinds,
        bounds=Bounds(np.zeros_like(upper), upper),
        constraints=[
            LinearConstraint(hstack([whole, none]), 1.0, 1.0),
            LinearConstraint(hstack([filled, used]), -np.inf, 0.0),
        ],
        options={"mip_rel_gap": 1e-3},
    )
    if result.x is None:
        return None
    shares = np.clip(result.x[: classes * sites].reshape(classes, sites), 0.0, None)
    return shares / shares.sum(axis=1, keepdims=True)
