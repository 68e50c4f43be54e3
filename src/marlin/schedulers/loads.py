"""What demand weighs at each site, and routing from coarser shares: shared by many schedulers."""

from __future__ import annotations

import numpy as np

from marlin.fleet.contract import State
from marlin.fleet.simulator import TINY
from marlin.fleet.world import World


def site_capacity_per_s(world: World) -> np.ndarray:
    """Requests per second of each class that would alone fill a whole site, [D, M, S]."""
    constants = world.constants
    return np.einsum("dg,gms->dms", constants.nodes, constants.node_rate_per_s)


def site_full_power_w(world: World) -> np.ndarray:
    """IT power of each site with every node busy, [D]."""
    constants = world.constants
    return constants.nodes @ (constants.base_full_w + constants.gpus * constants.gpu_tdp_w)


def load_per_request_per_s(world: World) -> np.ndarray:
    """Share of a site with every node on that one request per second takes, [D, M, S]."""
    return 1.0 / np.clip(site_capacity_per_s(world), TINY, None)


def class_load(world: World, arrival_rate_per_s: np.ndarray) -> np.ndarray:
    """Utilisation of a site if all of a class went there; arrivals [1, O, M, S] -> [O, M, S, D]."""
    slots = np.moveaxis(load_per_request_per_s(world), 0, -1)  # [M, S, D]
    return arrival_rate_per_s[0][..., None] * slots


def backlog_load(world: World, state: State) -> np.ndarray:
    """Share of an epoch of a whole site that its backlog takes, [D]."""
    slots = load_per_request_per_s(world)
    return (state.backlog[0] / world.epoch_s * slots).sum(axis=(1, 2))


def running_share(world: World, state: State, available: np.ndarray) -> np.ndarray:
    """Share of each site's capacity for a model that nodes with it loaded have, [M, D].

    `available` [1, D, G] is the share of each pool's nodes that can run.
    """
    rate = world.constants.node_rate_per_s
    loaded = state.loaded[0] * available[0][..., None]  # [D, G, M]
    whole = np.einsum("dg,gms->md", world.constants.nodes, rate)
    return np.einsum("dgm,gms->md", loaded, rate) / np.clip(whole, TINY, None)


def same_for_all(world: World, share: np.ndarray) -> np.ndarray:
    """Routing [1, O, M, S, D] that gives every class the site shares [D], which sum to one."""
    return np.broadcast_to(share, (1, *world.class_shape, len(world.sites))).copy()
