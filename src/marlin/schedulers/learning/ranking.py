"""The action of learned schedulers: how sites are ranked, how far filled, and what stays on.

Seven numbers say what a greedy scheduler would fix: what distance, carbon, water and price weigh in
the order of the sites, how far a site is filled, how busy its nodes are to be, and how many of the
nodes that run stay on. So the simple greedy schedulers are points of the space, and what is learned
is when to be which. Axes: B worlds, O origins, D sites.
"""

from __future__ import annotations

import numpy as np

from marlin.fleet.contract import Inputs, Plan, State
from marlin.fleet.power_down import sized_plan
from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.loads import load_per_request_per_s, site_capacity_per_s, site_full_power_w

RANKS = 4  # distance, carbon, water, price
RANK_REACH = 3.0  # weights of the order lie between e^-3 and e^3
ACTION_SIZE = RANKS + 3
LEAST = 0.3  # how far a site is filled, and nodes are used, at least
MOST_USED = 0.95  # of nodes that are on; a site is filled as far as the dispatcher does


def decode(world: World, action: np.ndarray, forecast: Inputs, state: State) -> Plan:
    """Plans for the forecast from actions [B, 7] in [-1, 1]; see the module for what they mean."""
    level = 0.5 * (1.0 + action)
    ceiling = LEAST + (world.utilisation_ceiling - LEAST) * level[:, RANKS]
    target = LEAST + (MOST_USED - LEAST) * level[:, RANKS + 1, None]
    work = np.einsum(
        "boms,dms->bod", forecast.arrival_rate_per_s, load_per_request_per_s(world), optimize=True
    )
    weights = np.exp(RANK_REACH * action[:, :RANKS])
    share = fill_ranked(world, site_costs(world, weights, forecast, work), work, ceiling)
    shape = (len(action), *world.class_shape, len(world.sites))
    routing = np.broadcast_to(share[:, :, None, None, :], shape)
    plan = sized_plan(world, routing, forecast.arrival_rate_per_s, target, forecast.available)
    warm = level[:, -1, None, None] * state.nodes_on / world.constants.nodes.clip(min=TINY)
    return Plan(plan.routing, np.maximum(plan.power, warm.clip(max=1.0)))


def start_latent(weights: np.ndarray) -> np.ndarray:
    """What a policy acts around before it has learned anything, before squashing, [B, 7].

    The greedy scheduler of the scheme `weights` [B, 4]: what weighs most ranks first, sites are
    filled well, and nodes are moderately busy.
    """
    start = np.zeros((len(weights), ACTION_SIZE))
    start[:, :RANKS] = 2.0 * weights - 0.5
    start[:, RANKS] = 0.7
    return start


def site_costs(world: World, weights: np.ndarray, forecast: Inputs, work: np.ndarray) -> np.ndarray:
    """Weighted sum of distance and of what an origin's work costs at each site, [B, O, D].

    Each of the four is over its mean magnitude; `weights` [B, 4], `work` [B, O, D] load of a site.
    """
    energy = work * site_full_power_w(world)
    energy = energy / energy.mean(axis=2, keepdims=True).clip(min=TINY)
    cost = weights[:, 0, None, None] * _relative(world.constants.rtt_s[None])
    for rank, factor in enumerate((carbon_g_per_kwh, water_l_per_kwh, price_usd_per_mwh), 1):
        cost = cost + weights[:, rank, None, None] * _relative(factor(forecast)[:, None] * energy)
    return cost


def fill_ranked(
    world: World, cost: np.ndarray, work: np.ndarray, ceiling: np.ndarray
) -> np.ndarray:
    """Shares [B, O, D] that `fill.fill_by_cost` gives each world, all worlds at once.

    Pairs of origin and site in the order of `cost` [B, O, D], nearer first among equals, until a
    site's load, in the units of `work` [B, O, D], reaches `ceiling` [B]; the rest by capacity.
    """
    worlds, origins, sites = cost.shape
    near = np.broadcast_to(world.constants.rtt_s, cost.shape)
    order = np.lexsort((near.reshape(worlds, -1), cost.reshape(worlds, -1)))
    room = np.repeat(ceiling[:, None], sites, axis=1)
    left = np.ones((worlds, origins))
    share = np.zeros(cost.shape)
    b = np.arange(worlds)
    for pair in order.T:
        o, d = np.divmod(pair, sites)
        load = work[b, o, d]
        taken = np.minimum(left[b, o], room[b, d] / load.clip(min=TINY)).clip(min=0.0)
        share[b, o, d] = taken
        left[b, o] -= taken
        room[b, d] -= taken * load
    size = site_capacity_per_s(world).sum(axis=(1, 2))
    return share + left[..., None] * size / size.sum()


def _relative(value: np.ndarray) -> np.ndarray:
    return value / np.abs(value).mean(axis=(1, 2), keepdims=True).clip(min=TINY)
