"""Splitwise: prompts and outputs on machines of their own, queues levelled by pending tokens.

Source: Splitwise (ISCA 2024). Adapted: a plan names sites and node types, and the fluid model runs
both phases on every node that is on. So the pools decide how full a site counts and how many nodes
of which type it keeps on, not which node runs which phase. `SplitwiseAsRun` is the greedy stand-in
that MARLIN was compared with.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler, plan_for
from marlin.schedulers.jsq import level
from marlin.schedulers.loads import same_for_all

PROMPT_SCALE, OUTPUT_SCALE, OUTPUT_WEIGHT = 4000.0, 8000.0, 1.5  # of the stand-in


@dataclass
class Splitwise(Scheduler):
    """Levels the fuller of the two pools of each site; sizes each pool by the load of its phase."""

    chance: ClassVar[bool] = False
    name: str = "splitwise"
    target_utilisation: float = Field(0.75, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, forecast = observation.world, observation.forecast
        nodes = world.constants.nodes * forecast.available[0]  # [D, G]
        demand = forecast.arrival_rate_per_s[0].sum(axis=0)  # [M, S]
        waiting = observation.state.backlog[0] / world.epoch_s  # [D, M, S]
        members = pools(world, nodes, demand)
        whole = phase_loads(world, nodes, members, demand)
        pending = phase_loads(world, nodes, members, waiting)
        # A request waits for the fuller of its two pools.
        size = 1.0 / np.clip(whole.max(axis=0), TINY, None)
        share = level(size * pending.max(axis=0), size, 1.0)
        need = np.einsum("pdg,pd->dg", members, share * whole + pending)
        rate = world.constants.node_rate_per_s
        capacity = np.clip(np.einsum("dg,gms->dms", nodes, rate), TINY, None)
        load = ((share[:, None, None] * demand + waiting) / capacity).sum(axis=(1, 2))
        mix = demand / np.clip(demand.sum(), TINY, None)
        part = nodes * np.einsum("ms,dms,gms->dg", mix, 1.0 / capacity, rate)
        power = in_proportion(need, part, load / self.target_utilisation)
        return Plan(same_for_all(world, share), power[None])


@dataclass
class SplitwiseAsRun(Scheduler):
    """Buckets of one origin and model, each whole, to the site with the least pending tokens.

    Prompt tokens count over 4000 and output tokens 1.5 times over 8000, at every site alike.
    """

    chance: ClassVar[bool] = False
    name: str = "splitwise_as_run"
    target_utilisation: float = Field(0.75, gt=0, le=1)

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        world, demand = observation.world, observation.forecast.arrival_rate_per_s[0]
        constants = world.constants
        score = constants.prompt_tokens / PROMPT_SCALE  # [S] of a request
        score = score + OUTPUT_WEIGHT * constants.output_tokens / OUTPUT_SCALE
        pending = (observation.state.backlog[0] @ score).sum(axis=1)  # [D]
        buckets = world.epoch_s * demand @ score  # [O, M]
        routing = np.zeros((1, *demand.shape, len(world.sites)))
        for (origin, model), bucket in np.ndenumerate(buckets):
            site = int(np.argmin(pending))
            routing[0, origin, model, :, site] = 1.0
            pending[site] += bucket
        return plan_for(observation, routing, self.target_utilisation)


def pools(world: World, nodes: np.ndarray, demand: np.ndarray) -> np.ndarray:
    """Which node types serve prompts and which outputs at each site, [2, D, G] of zeros and ones.

    Types that spend less of their time on prompts than the geometric mean of all types are better
    at them. A site with nodes `nodes` [D, G] of one kind only uses them for both (the mixed pool);
    so does a fleet of one node type. `demand` [M, S] weighs models and services.
    """
    prompt_s, output_s = (np.einsum("gms,ms->g", w, demand + TINY) for w in phase_work_s(world))
    ratio = np.log(prompt_s / output_s)
    better = ratio < ratio.mean() - 1e-9
    members = np.stack([better, ~better])[:, None, :] & (nodes > 0.0)
    empty = ~members.any(axis=-1, keepdims=True)
    return np.where(empty, 1.0, members)


def phase_work_s(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of a node that the prompt and the output of a request take, [G, M, S] each."""
    constants = world.constants
    replicas = constants.replicas_per_node[:, :, None]
    output_s = constants.work_s - constants.prefill_s
    return constants.prefill_s / replicas, output_s / replicas


def phase_loads(
    world: World, nodes: np.ndarray, members: np.ndarray, rate_per_s: np.ndarray
) -> np.ndarray:
    """Utilisation of the pools of each site, prompts then outputs, [2, D].

    `nodes` [D, G], `members` [2, D, G], `rate_per_s` [D, M, S] or [M, S] what comes to each site.
    """
    speed = np.stack([1.0 / np.clip(work, TINY, None) for work in phase_work_s(world)])
    capacity = np.einsum("dg,pdg,pgms->pdms", nodes, members, speed)
    return (rate_per_s / np.clip(capacity, TINY, None)).sum(axis=(-2, -1))


def in_proportion(need: np.ndarray, part: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Levels [D, G] in proportion to `need` [D, G] whose capacity is `wanted` [D] of the site's.

    `part` [D, G] is the share of a site's capacity that each pool holds. What a pool that is
    fully on lacks is made up by the other: machines that change to the mixed pool.
    """
    need = np.clip(need, 1e-9, None)
    full = np.zeros(need.shape, dtype=bool)
    for _ in range(need.shape[1]):
        left = wanted - (part * full).sum(axis=1)
        scale = left / np.clip((part * need * ~full).sum(axis=1), TINY, None)
        full |= need * scale[:, None] >= 1.0
    left = np.clip(wanted - (part * full).sum(axis=1), 0.0, None)
    scale = left / np.clip((part * need * ~full).sum(axis=1), TINY, None)
    return np.where(full, 1.0, np.clip(need * scale[:, None], 0.0, 1.0))
