"""A fleet as tensors of pools: what does not change from epoch to epoch.

A pool is the nodes of one type at one site; every pool is a token of the policy, so that fleets of
any number of sites and node types are read alike. Axes: O origins, M models, S services, P pools
(site by site, the node types of a site one after the other), D sites, G node types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.schedulers.curves import at_use, curves, mix_rate_per_s
from marlin.schedulers.loads import load_per_request_per_s

ENERGY_USE, LATENCY_USE = 0.85, 0.75  # utilisations at which pools are compared
NEAR_S = 0.02  # a site is near to users that it serves about this much faster than others do
MOST_LATE = 0.8  # of an epoch that a boot may take and still count in it


@dataclass(frozen=True)
class Pools:
    """Constants of one fleet, float32. Pools without nodes have zero everywhere."""

    world: World  # with torch constants
    site: Tensor  # [P] index of a pool's site
    nodes: Tensor  # [P]
    has_nodes: Tensor  # [P] one or zero
    load: Tensor  # [P, M, S] share of the pool that a request per second takes
    site_load: Tensor  # [D, M, S] the same of a whole site
    size: Tensor  # [P] share of the fleet's capacity
    site_size: Tensor  # [D] the same of sites
    energy: Tensor  # [P] IT energy of a unit of work over the fleet's mean
    latency_s: Tensor  # [P] inside a site, at `LATENCY_USE`
    late: Tensor  # [P] share of an epoch that a node takes to boot and load
    rtt_s: Tensor  # [O, P]
    closeness: Tensor  # [O, D] how the demand of an origin counts as near to sites, sums to one
    heavier: Tensor  # [M] standardised logarithm of the work of a model's requests

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of sites and node types."""
        sites = len(self.site_size)
        return sites, len(self.nodes) // sites


def make_pools(world: World, mix: np.ndarray) -> Pools:
    """Pools of a NumPy `world` that serves the mix [M, S] of requests, shares that sum to one."""
    constants = world.constants
    nodes, rate = constants.nodes, constants.node_rate_per_s
    sites, types = nodes.shape
    mixed = mix_rate_per_s(world, mix)  # [G]
    capacity = nodes * mixed
    size = capacity / capacity.sum()
    known = curves(world, mix)
    some = nodes > 0.0
    energy = np.where(some, at_use(known.node_w, ENERGY_USE) / (ENERGY_USE * mixed), 0.0)
    latency = np.where(some, at_use(known.latency_s, LATENCY_USE), 0.0)
    work = np.log(1.0 / np.clip(rate, TINY, None).mean(axis=(0, 2)))  # [M]
    every = nodes[..., None, None] * rate  # [D, G, M, S]
    load = np.where(every > 0.0, 1.0 / np.clip(every, TINY, None), 0.0)
    nearest = np.exp(-(constants.rtt_s - constants.rtt_s.min(axis=1, keepdims=True)) / NEAR_S)
    late = np.clip(constants.cold_s / world.epoch_s, 0.0, MOST_LATE)
    return Pools(
        world=world.to_torch(),
        site=torch.arange(sites).repeat_interleave(types),
        nodes=tensor(nodes.ravel()),
        has_nodes=tensor(some.ravel()),
        load=tensor(load.reshape(sites * types, *load.shape[2:])),
        site_load=tensor(load_per_request_per_s(world)),
        size=tensor(size.ravel()),
        site_size=tensor(size.sum(axis=1)),
        energy=tensor((energy / (energy * size).sum()).ravel()),
        latency_s=tensor(latency.ravel()),
        late=tensor(np.tile(late, sites)),
        rtt_s=tensor(np.repeat(constants.rtt_s, types, axis=1)),
        closeness=tensor(nearest / nearest.sum(axis=1, keepdims=True)),
        heavier=tensor((work - work.mean()) / (work.std() + 1e-6)),
    )


def by_site(pools: Pools, values: Tensor) -> Tensor:
    """Sums [B, D] of values [B, P] over the pools of each site."""
    return split(pools, values).sum(-1)


def split(pools: Pools, values: Tensor) -> Tensor:
    """Values [B, P] as [B, D, G]."""
    return values.reshape(len(values), *pools.shape)


def tensor(values: np.ndarray) -> Tensor:
    """What the policy computes with: single precision."""
    return torch.from_numpy(np.array(values, dtype=np.float32))
