"""Fill sites in order of cost: the routine behind every greedy scheduler."""

from __future__ import annotations

import numpy as np

from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.schedulers.loads import load_per_request_per_s, site_capacity_per_s


def fill_by_cost(
    world: World, cost: np.ndarray, arrival_rate_per_s: np.ndarray, ceiling: float
) -> np.ndarray:
    """Routing [1, O, M, S, D] that gives each origin its cheapest sites that still have room.

    Pairs of origin and site are taken in the order of `cost` [O, D], nearer first among equals;
    a site takes an origin's requests until its load reaches `ceiling`. Demand that finds no room
    anywhere is spread by capacity. `arrival_rate_per_s` is [1, O, M, S].
    """
    origins, sites = cost.shape
    demand = arrival_rate_per_s[0]
    # Utilisation that the whole of an origin's demand would put on a site.
    load = np.einsum("oms,dms->od", demand, load_per_request_per_s(world))
    room = np.full(sites, ceiling)
    left = np.ones(origins)
    share = np.zeros((origins, sites))
    order = np.lexsort((world.constants.rtt_s.ravel(), cost.ravel()))
    for origin, site in zip(*np.unravel_index(order, cost.shape), strict=True):
        if left[origin] <= 0.0 or room[site] <= 0.0:
            continue
        taken = min(left[origin], room[site] / max(load[origin, site], TINY))
        share[origin, site] += taken
        left[origin] -= taken
        room[site] -= taken * load[origin, site]
    size = site_capacity_per_s(world).sum(axis=(1, 2))
    share += left[:, None] * size / size.sum()
    shape = (1, *demand.shape, sites)
    return np.broadcast_to(share[None, :, None, None, :], shape).copy()
