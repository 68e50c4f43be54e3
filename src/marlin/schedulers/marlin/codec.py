"""What MARLIN's agents see and what their numbers mean."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from marlin.fleet.contract import Inputs, Plan, State
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import site_capacity
from marlin.fleet.world import World
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh

LOGIT_REACH = 4.0  # a site's preference spans e^(2 x 4) between -1 and 1
NEAREST_PER_S = 60.0  # strongest weight of a second of RTT in the routing logits
TARGET_LOW, TARGET_HIGH = 0.3, 0.85
RULE_TARGET = np.array([-0.2, 0.6, 0.6, 0.6])  # of the four rules of thumb
RULE_LOCALITY = np.array([1.0, -1.0, -1.0, -1.0])
GLOBAL_FEATURES = 1
SITE_FEATURES = 7


def action_size(world: World) -> int:
    """Numbers in an action: a preference per model and site, a load target per site, locality."""
    return (len(world.models) + 1) * len(world.sites) + 1


def state_size(world: World) -> int:
    """Numbers in an agent's state."""
    return SITE_FEATURES * len(world.sites) + GLOBAL_FEATURES


def observe(world: World, state: State, forecast: Inputs) -> np.ndarray:
    """State of every agent, [B, state_size]: per site carbon, price, water, PUE, demand nearby,
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


def decode(world: World, action: np.ndarray, forecast: Inputs) -> Plan:
    """Plans from actions [B, A] in [-1, 1].

    Routing is a softmax over sites of a preference per model less a distance term; power follows
    from the load target of each site through the shared power-down layer.
    """
    sites, models = len(world.sites), len(world.models)
    taste = LOGIT_REACH * action[:, : models * sites].reshape(-1, 1, models, 1, sites)
    locality = NEAREST_PER_S * 0.5 * (1.0 + action[:, -1]).reshape(-1, 1, 1, 1, 1)
    logits = taste - locality * world.constants.rtt_s[:, None, None, :]
    routing = np.repeat(softmax(logits, axis=-1), len(world.services), axis=-2)
    level = 0.5 * (1.0 + action[:, models * sites : -1])
    target = TARGET_LOW + (TARGET_HIGH - TARGET_LOW) * level
    return sized_plan(world, routing, forecast.arrival_rate_per_s, target, forecast.available)


def heuristic(world: World, forecast: Inputs) -> np.ndarray:
    """What each agent would propose by rule of thumb, [B, 4, A].

    The TTFT agent keeps requests near and sites half empty; the others prefer sites that are
    best by their own factor and fill them.
    """
    worlds, sites = forecast.pue.shape
    factors = np.stack(
        [
            np.zeros_like(forecast.pue),
            carbon_g_per_kwh(forecast),
            water_l_per_kwh(forecast),
            price_usd_per_mwh(forecast),
        ],
        axis=1,
    )  # [B, 4, D]
    spread = np.clip(factors.std(axis=-1, keepdims=True), 1e-6, None)
    taste = -np.clip((factors - factors.mean(axis=-1, keepdims=True)) / spread, -2.0, 2.0) / 2.0
    target = np.broadcast_to(RULE_TARGET[None, :, None], (worlds, 4, sites))
    near = np.broadcast_to(RULE_LOCALITY[None, :, None], (worlds, 4, 1))
    return np.concatenate([np.tile(taste, (1, 1, len(world.models))), target, near], axis=-1)
