"""Plans as genes in [0, 1], and the plans that are known to be good: what searches start from.

Genes of a plan: a preference for each model and site, how much distance counts, and the target
utilisation. Axes: P plans, O origins, M models, D sites, N = M D + 2 genes.
"""

from __future__ import annotations

import itertools

import numpy as np

from marlin.fleet.contract import Plan
from marlin.fleet.power_down import sized_plan
from marlin.fleet.world import World
from marlin.schedulers.base import Observation
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.fill import fill_by_cost
from marlin.schedulers.greedy import energy_by_origin, relative

PREFERENCE_SPAN = 10.0  # a preferred site gets up to e^10 times the share of another
NEAREST_PER_S = 100.0  # strongest weight of a second of RTT against a preference
TARGET_LOW, TARGET_HIGH = 0.1, 0.85  # utilisation that power is sized for, on a log scale
KNOWN_CEILING = 0.8  # how full greedy fills leave a site, and what power is sized for
FAST_TARGET = 0.3  # of the plan that minds nothing but TTFT


def gene_count(world: World) -> int:
    """Numbers in a plan's genes, N."""
    return len(world.models) * len(world.sites) + 2


def decode(observation: Observation, genes: np.ndarray) -> Plan:
    """Plans for the forecast from genes [P, N], sized by the shared power-down layer."""
    world, forecast = observation.world, observation.forecast
    sites = len(world.sites)
    preference = PREFERENCE_SPAN * genes[:, :-2].reshape(len(genes), 1, -1, 1, sites)
    near = NEAREST_PER_S * genes[:, -2].reshape(-1, 1, 1, 1, 1)
    logits = preference - near * world.constants.rtt_s[:, None, None, :]
    routing = np.exp(logits - logits.max(axis=-1, keepdims=True))
    routing /= routing.sum(axis=-1, keepdims=True)
    routing = np.broadcast_to(routing, (len(genes), *world.class_shape, sites))
    target = TARGET_LOW * (TARGET_HIGH / TARGET_LOW) ** genes[:, -1:]
    demand = np.repeat(forecast.arrival_rate_per_s, len(genes), axis=0)
    return sized_plan(world, routing, demand, target, forecast.available)


def encode(world: World, shares: np.ndarray, near: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Genes [P, N] of plans that give every class the site shares [P, D].

    `near` [P] in [0, 1] is how much distance counts on top, `target` [P] a utilisation. Shares
    below e^-10 of the largest come back as that.
    """
    size = shares / shares.max(axis=1, keepdims=True)
    preference = 1.0 + np.log(np.clip(size, np.exp(-PREFERENCE_SPAN), None)) / PREFERENCE_SPAN
    level = np.log(target / TARGET_LOW) / np.log(TARGET_HIGH / TARGET_LOW)
    return np.column_stack([np.tile(preference, len(world.models)), near, level])


def even_split(world: World) -> np.ndarray:
    """Genes [1, N] of the same share for every site."""
    shares = np.ones((1, len(world.sites)))
    return encode(world, shares, np.zeros(1), np.full(1, KNOWN_CEILING))


def single_sites(world: World) -> np.ndarray:
    """Genes [D, N] of everything at one site, for each site."""
    sites = len(world.sites)
    return encode(world, np.eye(sites), np.zeros(sites), np.full(sites, KNOWN_CEILING))


def greedy_plans(observation: Observation) -> np.ndarray:
    """Genes [11, N] of the greedy plans: each objective alone, each pair, all four.

    Sites are filled in the order of the weighted sum of RTT, carbon, water and cost, each over its
    mean; what a plan keeps of that are the shares of sites. The plan for TTFT sends each origin to
    its nearest sites.
    """
    world, forecast = observation.world, observation.forecast
    energy = energy_by_origin(world, forecast)
    factors = (carbon_g_per_kwh, water_l_per_kwh, price_usd_per_mwh)
    terms = [world.constants.rtt_s, *(factor(forecast)[0] * energy for factor in factors)]
    weights = _mixes(len(terms))
    costs = np.einsum("pj,jod->pod", weights, np.stack([relative(term) for term in terms]))
    demand = forecast.arrival_rate_per_s
    routing = [fill_by_cost(world, cost, demand, KNOWN_CEILING) for cost in costs]
    routed = np.einsum("oms,pomsd->pd", demand[0], np.concatenate(routing))
    near = weights[:, 0]
    fastest = near == 1.0
    shares = np.where(fastest[:, None], 1.0, routed / routed.sum(axis=1, keepdims=True))
    return encode(world, shares, near, np.where(fastest, FAST_TARGET, KNOWN_CEILING))


def _mixes(objectives: int) -> np.ndarray:
    """Weights of each objective alone, of each pair, and of all: rows that sum to one."""
    alone = np.eye(objectives)
    pairs = [(a + b) / 2 for a, b in itertools.combinations(alone, 2)]
    return np.stack([*alone, *pairs, alone.mean(axis=0)])
