"""What nodes draw and how long requests wait there, by how busy they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from marlin.fleet.contract import Inputs, Plan, State
from marlin.fleet.simulator import JOULES_PER_KWH, TINY, step
from marlin.fleet.world import World

USE = np.array([0.3, 0.5, 0.65, 0.75, 0.85, 0.92, 0.97])
"""Utilisations at which curves are known."""


@dataclass(frozen=True)
class Curves:
    """A warm node of each pool that serves one mix of requests, at the utilisations `USE` [U]."""

    node_w: np.ndarray  # [D, G, U] IT power
    latency_s: np.ndarray  # [D, G, U] from arrival at the site to the first token


def at_use(curve: np.ndarray, use: float) -> np.ndarray:
    """A curve [..., U] at another utilisation, on the line through its neighbours."""
    right = int(np.clip(np.searchsorted(USE, use), 1, len(USE) - 1))
    share = (use - USE[right - 1]) / (USE[right] - USE[right - 1])
    return (1.0 - share) * curve[..., right - 1] + share * curve[..., right]


def curves(world: World, mix: np.ndarray) -> Curves:
    """Curves of every pool when it alone is on at its site and all sites are equally busy.

    `mix` [M, S] are shares of requests. They are properties of the hardware, read from the fluid
    model at made-up demand; no plan of any epoch is tried out.
    """
    constants = world.constants
    sites, types = constants.nodes.shape
    only = np.repeat(np.eye(types), len(USE), axis=0)  # [G U, G]
    pool = only @ constants.nodes.T  # [G U, D]
    share = pool / np.clip(pool.sum(axis=1, keepdims=True), 1.0, None)
    rate = only @ mix_rate_per_s(world, mix) * pool.sum(axis=1) * np.tile(USE, types)
    demand = np.zeros((len(rate), *world.class_shape))
    demand[:, 0] = rate[:, None, None] * mix
    routing = np.broadcast_to(share[:, None, None, None, :], (*demand.shape, sites))
    power = np.broadcast_to(only[:, None, :], (len(rate), sites, types))
    backlog = np.zeros((len(rate), sites, *mix.shape))
    # Without distance a site's TTFT is what happens inside.
    near = replace(world, constants=replace(constants, rtt_s=np.zeros_like(constants.rtt_s)))
    work = (mix / np.clip(constants.node_rate_per_s, TINY, None)).sum(axis=-1)  # [G, M]
    settled = work / np.clip(work.sum(axis=-1, keepdims=True), TINY, None)  # no model has to load
    before = State(backlog, power * constants.nodes, (power * constants.nodes)[..., None] * settled)
    _, outcome = step(near, before, Plan(routing, power), _plain(demand, constants.nodes))
    site_w = outcome.site_energy_kwh * JOULES_PER_KWH / world.epoch_s
    off_w = (1.0 - only) @ (constants.nodes * constants.off_w).T
    node_w = (site_w - off_w) / np.clip(pool, 1.0, None)
    shape = (types, len(USE), sites)
    return Curves(
        node_w.reshape(shape).transpose(2, 0, 1),
        outcome.site_ttft_s.reshape(shape).transpose(2, 0, 1),
    )


def mix_rate_per_s(world: World, mix: np.ndarray) -> np.ndarray:
    """Requests per second of the mix [M, S] that fill one node of each type, [G]."""
    each = mix / np.clip(world.constants.node_rate_per_s, TINY, None)
    return 1.0 / np.clip(each.sum(axis=(1, 2)), TINY, None)


def _plain(demand: np.ndarray, nodes: np.ndarray) -> Inputs:
    """Demand [B, O, M, S] where facilities add nothing to IT energy and every node can run."""
    one = np.ones((len(demand), len(nodes)))
    every = np.ones((len(demand), *nodes.shape))
    return Inputs(demand, one, one, one, one, one, one, every)
