"""The power-down layer that every scheduler shares: which nodes a routing needs."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from marlin.fleet.contract import Plan
from marlin.fleet.simulator import dispatch, site_capacity
from marlin.fleet.terms import TINY, contiguous, weighted_sums
from marlin.fleet.world import World

Array = Any


def sized_plan(
    world: World,
    routing: Array,
    arrival_rate_per_s: Array,
    target_utilisation: Array,
    available: Array | float = 1.0,
) -> Plan:
    """A plan that serves the expected load at `target_utilisation`, efficient nodes first.

    Routing that asks more of a site than it holds is first spilled as the dispatcher would with
    every node on, so the sites that take the overflow are woken too. Pools are switched on in the
    order of the work they do per watt; a site that is sent nothing is switched off. Shapes:
    routing [B, O, M, S, D], arrivals [B, O, M, S], target [B, D] or a number in (0, 1],
    `available` [B, D, G] the share of each pool's nodes that is expected to run.
    """
    terms = world.terms
    xp = array_namespace(routing)
    constants = world.constants
    nodes = constants.nodes if constants.nodes.ndim == 3 else constants.nodes[None]
    nodes = nodes * available
    full = site_capacity(constants, nodes)  # [B or 1, D, M, S]
    flows = dispatch(world, routing, arrival_rate_per_s, full, xp.zeros_like(full))
    shares = flows / arrival_rate_per_s.clip(min=TINY)[..., None]
    shares = xp.where(arrival_rate_per_s[..., None] > TINY, shares, routing)
    routed = xp.permute_dims(xp.sum(flows, axis=1), (1, 2, 3, 0))  # [M, S, D, B]
    routed = xp.reshape(contiguous(routed), (-1, *routed.shape[2:]))
    target = target_utilisation
    if getattr(target, "ndim", 0):
        target = xp.moveaxis(target, 0, -1)
    # Nodes of each type that the whole load of a site would take, in the order of switching on.
    wanted = weighted_sums(terms.switched_work, routed) / target  # [R, D, B]
    pools = xp.permute_dims(nodes, (2, 1, 0))  # [G, D, B]
    need = wanted / weighted_sums(terms.switched, pools).clip(min=TINY)
    levels, left = [], 1.0  # left: part of the load that pools already on do not take
    for rank in range(len(need)):
        level = (need[rank] * left).clip(max=1.0)
        left = (left - level / need[rank].clip(min=TINY)).clip(min=0.0)
        levels.append(level)
    power = weighted_sums(terms.switched_back, xp.stack(levels))  # [G, D, B]
    return Plan(routing=shares, power=xp.permute_dims(power, (2, 1, 0)))
