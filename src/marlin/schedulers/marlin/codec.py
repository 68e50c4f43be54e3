"""What the numbers of MARLIN's agents mean; what they see is `learning.features`."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from marlin.fleet.contract import Inputs, Plan
from marlin.fleet.power_down import sized_plan
from marlin.fleet.world import World
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh

LOGIT_REACH = 4.0  # a site's preference spans e^(2 x 4) between -1 and 1
NEAREST_PER_S = 60.0  # strongest weight of a second of RTT in the routing logits
TARGET_LOW, TARGET_HIGH = 0.3, 0.85
RULE_TARGET = np.array([-0.2, 0.6, 0.6, 0.6])  # of the four rules of thumb
RULE_LOCALITY = np.array([1.0, -1.0, -1.0, -1.0])


def action_size(world: World) -> int:
    """Numbers in an action: a preference per model and site, a load target per site, locality."""
    return (len(world.models) + 1) * len(world.sites) + 1


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
