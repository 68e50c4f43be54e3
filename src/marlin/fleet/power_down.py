"""The power-down layer that every scheduler shares: which nodes a routing needs."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from marlin.fleet.contract import Plan
from marlin.fleet.simulator import dispatch, site_capacity
from marlin.fleet.terms import TINY
from marlin.fleet.world import World

Array = Any


def sized_plan(
    world: World, routing: Array, arrival_rate_per_s: Array, target_utilisation: Array
) -> Plan:
    """A plan that serves the expected load at `target_utilisation`, efficient nodes first.

    Routing that asks more of a site than it holds is first spilled as the dispatcher would with
    every node on, so the sites that take the overflow are woken too. Pools are switched on in the
    order of the work they do per watt; a site that is sent nothing is switched off. Shapes:
    routing [B, O, M, S, D], arrivals [B, O, M, S], target [B, D] or a number in (0, 1].
    """
    constants = world.constants
    xp = array_namespace(routing)
    full = site_capacity(constants, constants.nodes[None])  # [1, D, M, S]
    flows = dispatch(world, routing, arrival_rate_per_s, full, xp.zeros_like(full))
    shares = flows / xp.clip(arrival_rate_per_s, TINY, None)[..., None]
    shares = xp.where(arrival_rate_per_s[..., None] > TINY, shares, routing)
    routed = xp.moveaxis(xp.sum(flows, axis=1), -1, 1)  # [B, D, M, S]
    levels: list[Array | None] = [None] * len(world.node_types)
    left = 1.0  # part of the load that pools already on do not take
    for g in switch_on_order(world):
        rate = constants.nodes[:, g][:, None, None] * constants.node_rate_per_s[g]  # [D, M, S]
        need = xp.sum(routed / xp.clip(rate, TINY, None), axis=(2, 3)) / target_utilisation
        level = xp.clip(need * left, None, 1.0)
        levels[g] = level
        left = xp.clip(left - level / xp.clip(need, TINY, None), 0.0, None)
    return Plan(routing=shares, power=xp.stack(levels, axis=-1))


def switch_on_order(world: World) -> list[int]:
    """Node types by requests served per watt of a warm node, best first."""
    constants = world.constants
    warm_w = constants.base_full_w + constants.gpus * constants.gpu_tdp_w
    per_watt = [float(constants.node_rate_per_s[g].mean() / warm_w[g]) for g in range(len(warm_w))]
    return sorted(range(len(per_watt)), key=lambda g: -per_watt[g])
