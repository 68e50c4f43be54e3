"""Helix: maximum flow from users to sites, routed by interleaved weighted round robin.

Source: Helix (ASPLOS 2025). Adapted: each site holds whole models, so a node of the flow graph is
a pool of nodes and a layer placement is not searched; links between sites carry text and never
bind. `HelixAsRun` is the greedy stand-in that MARLIN was compared with.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.optimize import linprog
from scipy.sparse import coo_array, vstack

from marlin.fleet.contract import Plan
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.loads import backlog_load, class_load, site_capacity_per_s


@dataclass
class Helix(Scheduler):
    """Flows at which users and sites together reach the highest throughput, as routing weights."""

    chance: ClassVar[bool] = False
    name: str = "helix"
    target_utilisation: float = Field(0.75, gt=0, le=1)
    masked_above: float = Field(0.9, gt=0, description="backlog of a site that masks it")

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world = observation.world
        load = class_load(world, observation.forecast.arrival_rate_per_s)  # [O, M, S, D]
        by_origin = load.sum(axis=(1, 2))
        pending = backlog_load(world, observation.state)
        room = np.where(pending < self.masked_above, 1.0, 0.0)
        room = room if room.any() else np.ones_like(room)
        size = site_capacity_per_s(world).sum(axis=(1, 2))
        size = size / size.sum()
        wanted = by_origin.mean(axis=1)
        # Users are scaled up until they could fill the fleet: the flow is that of full throughput.
        supply = wanted / max(wanted.sum(), 1e-12) * (room * size).sum()
        near = -world.constants.rtt_s
        flow = max_flow(supply, room * size, near)
        total = flow.sum(axis=1, keepdims=True)
        share = np.where(total > 1e-9, flow / np.clip(total, 1e-9, None), size)
        share /= share.sum(axis=1, keepdims=True)
        routing = np.broadcast_to(share[None, :, None, None, :], (1, *load.shape)).copy()
        return plan_for(observation, routing, self.target_utilisation)


def max_flow(supply: np.ndarray, capacity: np.ndarray, preference: np.ndarray) -> np.ndarray:
    """Flow [O, D] of the highest total from sources [O] to sinks [D]; ties by `preference` [O, D].

    Source: maximum flow as a linear program, HiGHS. An edge is worth 1 to 1.5: one more unit of
    flow takes two edges for one at most, so none is given up for a preferred edge.
    """
    origins, sites = preference.shape
    spread = np.ptp(preference) or 1.0
    worth = 1.0 + 0.5 * (preference - preference.min()) / spread
    edges = np.arange(origins * sites)
    out = coo_array((np.ones(len(edges)), (edges // sites, edges)))
    into = coo_array((np.ones(len(edges)), (edges % sites, edges)))
    result = linprog(
        -worth.ravel(),
        A_ub=vstack([out, into]),
        b_ub=np.concatenate([supply, capacity]),
        bounds=(0, None),
        method="highs",
    )
    if not result.success:
        raise RuntimeError(f"maximum flow was not found: {result.message}")
    return np.clip(result.x.reshape(origins, sites), 0.0, None)


@dataclass
class HelixAsRun(Scheduler):
    """Buckets of one origin and model, each whole, to the site with the least pending work.

    Of a site's node types, ``round(types (1 - share))`` are on, at least one, in the fleet's
    order: fewer as the site gets more. Power levels are its own, not the shared layer's.
    """

    chance: ClassVar[bool] = False
    name: str = "helix_as_run"

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world = observation.world
        load = class_load(world, observation.forecast.arrival_rate_per_s)
        pending = backlog_load(world, observation.state)
        routing = np.zeros((1, *load.shape))
        for origin in range(load.shape[0]):
            for model in range(load.shape[1]):
                site = int(np.argmin(pending))
                routing[0, origin, model, :, site] = 1.0
                pending[site] += load[origin, model, :, site].sum()
        demand = observation.forecast.arrival_rate_per_s[0]
        share = np.einsum("oms,omsd->d", demand, routing[0]) / max(demand.sum(), 1e-12)
        types = len(world.node_types)
        on = np.clip(np.round(types * (1.0 - share)), 1, types)
        power = (np.arange(types) < on[:, None]).astype(float)[None]
        return Plan(routing, power)
