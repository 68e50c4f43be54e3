"""The power-down layer that every scheduler shares: which nodes a routing needs."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from marlin.fleet.contract import Plan
from marlin.fleet.simulator import capacity_per_s, dispatched_shares, own_shares
from marlin.fleet.terms import TINY, weighted_sums, worlds_last
from marlin.fleet.world import World

Array = Any


def sized_plan(
    world: World,
    routing: Array,
    arrival_rate_per_s: Array,
    target_utilisation: Array,
    available: Array | None = None,
) -> Plan:
    """A plan that serves the expected load at `target_utilisation`, efficient nodes first.

    Routing that asks more of a site than it holds is first spilled as the dispatcher would with
    every node on, so the sites that take the overflow are woken too. Pools are switched on in the
    order of the work they do per watt; a site that is sent nothing is switched off. Shapes:
    routing [B, O, M, S, D], arrivals [B, O, M, S], target [B, D] or a number in (0, 1],
    `available` [B, D, G] the share of each pool's nodes that is expected to run, all if not given.
    """
    terms = world.terms
    xp = array_namespace(routing)
    pools = terms.nodes  # [G, D, b]
    if available is not None:
        pools = pools * xp.permute_dims(available, (2, 1, 0))
    capacity = capacity_per_s(world, pools)  # [M, S, D, b]
    shares, routed = dispatched_shares(
        world, own_shares(world, routing), worlds_last(arrival_rate_per_s), capacity, 0.0 * capacity
    )
    routed = xp.reshape(routed, (-1, *routed.shape[2:]))
    target = target_utilisation
    if getattr(target, "ndim", 0):
        target = xp.moveaxis(target, 0, -1)
    # Nodes of each type that the whole load of a site would take, in the order of switching on.
    wanted = weighted_sums(terms.switched_work, routed) / target  # [R, D, B]
    need = wanted / weighted_sums(terms.switched, pools).clip(min=TINY)
    levels, left = [], 1.0  # left: part of the load that pools already on do not take
    for rank in range(len(need)):
        level = (need[rank] * left).clip(max=1.0)
        left = (left - level / need[rank].clip(min=TINY)).clip(min=0.0)
        levels.append(level)
    power = weighted_sums(terms.switched_back, xp.stack(levels))  # [G, D, B]
    routing = xp.moveaxis(shares, -1, 0)
    return Plan(routing=routing, power=xp.permute_dims(power, (2, 1, 0)))
