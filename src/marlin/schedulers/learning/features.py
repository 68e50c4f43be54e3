"""What learned schedulers see of the fleet before an epoch."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from marlin.fleet.contract import Inputs, State
from marlin.fleet.simulator import site_capacity
from marlin.fleet.world import World
from marlin.schedulers.factors import water_l_per_kwh

GLOBAL_FEATURES = 1
SITE_FEATURES = 7
FLEET_LOAD = -1  # where in a state the load of the fleet is
CARBON, PRICE, WATER, PUE, DEMAND, BACKLOG, NODES_ON = range(SITE_FEATURES)


def state_size(world: World) -> int:
    """Numbers in a state, F."""
    return SITE_FEATURES * len(world.sites) + GLOBAL_FEATURES


def observe(world: World, state: State, forecast: Inputs) -> np.ndarray:
    """State of every learner, [B, F]: per site carbon, price, water, PUE, demand nearby,
    backlog and nodes on; and the demand of the whole fleet. Each number is of the order of one.
    """
    constants = world.constants
    arrivals = forecast.arrival_rate_per_s
    demand = arrivals.sum(axis=(2, 3))  # [B, O]
    closest = softmax(-constants.rtt_s / 0.02, axis=-1)  # [O, D]
    total = np.clip(demand.sum(axis=-1, keepdims=True), 1e-9, None)
    capacity = site_capacity(constants, constants.nodes[None])[0]  # [D, M, S]
    fleet = (arrivals.sum(axis=1) / capacity.sum(axis=0)).sum(axis=(1, 2))
    sites = [
        (forecast.carbon_g_per_kwh - 300.0) / 200.0,
        np.clip((forecast.price_usd_per_mwh - 50.0) / 50.0, -3.0, 3.0),
        water_l_per_kwh(forecast) - 1.5,
        (forecast.pue - 1.2) * 5.0,
        5.0 * demand @ closest / total - 0.4,
        np.clip((state.backlog / (capacity * world.epoch_s)).sum(axis=(2, 3)), 0.0, 2.0),
        state.nodes_on.sum(axis=-1) / constants.nodes.sum(axis=-1) - 0.5,
    ]
    return np.concatenate([*sites, 2.0 * fleet[:, None] - 1.0], axis=-1)


def of_sites(seen: np.ndarray, feature: int) -> np.ndarray:
    """One feature of every site, [B, D], out of states [B, F]."""
    sites = (seen.shape[1] - GLOBAL_FEATURES) // SITE_FEATURES
    return seen[:, feature * sites : (feature + 1) * sites]
