"""Join the shortest queue: work goes where the least is pending for what a site can do.

Source: Winston (1977), Optimality of the shortest line discipline; here in its fluid limit.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.loads import backlog_load, same_for_all, site_capacity_per_s


@dataclass
class Jsq(Scheduler):
    """Levels pending work over sites: those with a backlog get less until they have caught up."""

    chance: ClassVar[bool] = False
    name: str = "jsq"
    target_utilisation: float = Field(0.75, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world = observation.world
        demand = observation.forecast.arrival_rate_per_s[0].sum(axis=0)  # [M, S]
        capacity = site_capacity_per_s(world)
        size = capacity.sum(axis=(1, 2)) / capacity.sum()
        whole = (demand / capacity.sum(axis=0)).sum()  # of the fleet's capacity
        pending = size * backlog_load(world, observation.state)
        share = level(pending, size, float(whole))
        return plan_for(observation, same_for_all(world, share), self.target_utilisation)


def level(pending: np.ndarray, size: np.ndarray, inflow: float) -> np.ndarray:
    """Shares [D] of `inflow` that bring pending work over size to one level, or as near as can be.

    `pending` [D] and `inflow` are in one unit of work; `size` [D] is positive. Sites above the
    common level get nothing. Without inflow the shares are those of size.
    Source: water-filling, which a stream of requests each joining the shortest queue tends to.
    """
    if inflow <= 0.0:
        return size / size.sum()
    order = np.argsort(pending / size)
    # Level if the k least filled sites take all the inflow; right for the last k that it covers.
    levels = (inflow + np.cumsum(pending[order])) / np.cumsum(size[order])
    covered = levels > (pending / size)[order]
    height = levels[np.flatnonzero(covered)[-1]]
    return np.clip(height * size - pending, 0.0, None) / inflow
