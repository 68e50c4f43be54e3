"""Fleets to train on: the run's own, and random ones made of its sites, signals and demand.

A random fleet has 4 to 64 sites. Each takes zone, climate and network from a site of the run, but
its signals from another day, its round trips stretched, and nodes of its own; origins are
re-weighted, demand is scaled to a random load, and on some days a site is out for some hours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import Inputs, State, convert
from marlin.fleet.terms import TINY
from marlin.fleet.world import SPILL_REACH_S, Constants, World, site_detour_s, usual_share
from marlin.schedulers.marlin_nash.pools import Pools, make_pools, tensor

FEWEST_SITES, MOST_SITES = 4, 64
SHIFT_DAYS = 10  # of the record: signals come from a day of about the same season
LOAD = (0.3, 0.95)  # of a fleet at its busiest
LACKS_TYPE = 0.25  # chance that a site has no nodes of a type
OUTAGE = 0.25  # chance that a fleet has outages
OUTAGE_HOURS = (1.0, 8.0)
SITE_FIELDS = tuple(f.name for f in fields(Inputs) if f.name != "arrival_rate_per_s")


@dataclass(frozen=True)
class Record:
    """Epochs of the run to train on, as tensors [T, ...]."""

    truth: Inputs
    forecast: Inputs  # of each epoch, made one epoch before
    later: Inputs  # of the epoch after, made at the same time


@dataclass(frozen=True)
class Fleet:
    """A fleet and how its inputs are made of the record."""

    pools: Pools
    sites: Tensor  # [D] site of the run that each takes after
    shift: Tensor  # [D] days by which its signals are moved
    demand: Tensor  # [O] factor of demand
    outage: tuple[int, int, int] | None  # site, first epoch of the day, epochs

    def inputs(self, record: Record, days: np.ndarray, day: Tensor, offset: Tensor) -> _Known:
        """What is true, forecast and forecast of the epoch after, for worlds [B].

        `days` are the first epochs of the days to draw from, `day` [B] places in it, `offset` [B]
        epochs of the day.
        """
        first = torch.as_tensor(days)
        moved = first[(day[:, None] + self.shift) % len(days)] + offset[:, None]  # [B, D]
        own = first[day] + offset
        return _Known(
            *(
                self._made(inputs, own, moved, offset - delay)
                for inputs, delay in ((record.truth, 0), (record.forecast, 1), (record.later, 1))
            )
        )

    def _made(self, inputs: Inputs, own: Tensor, moved: Tensor, seen: Tensor) -> Inputs:
        """Inputs of epochs `own` [B]; sites have those of epochs `moved` [B, D].

        An outage is known as it was in epoch `seen` [B] of the day.
        """
        made = {name: getattr(inputs, name)[moved, self.sites] for name in SITE_FIELDS}
        demand = inputs.arrival_rate_per_s[own] * self.demand[:, None, None]
        if self.outage:
            site, start, length = self.outage
            out = (seen >= start) & (seen < start + length)
            made["available"] = made["available"].clone()
            made["available"][out, site] = 0.0
        return Inputs(arrival_rate_per_s=demand, **made)


@dataclass(frozen=True)
class _Known:
    truth: Inputs
    forecast: Inputs
    later: Inputs


def home_fleet(world: World, mix: np.ndarray) -> Fleet:
    """The run's own fleet."""
    sites, origins = len(world.sites), len(world.origins)
    return Fleet(
        make_pools(world, mix),
        torch.arange(sites),
        torch.zeros(sites, dtype=torch.long),
        torch.ones(origins),
        None,
    )


def random_fleet(world: World, busiest: np.ndarray, rng: np.random.Generator) -> Fleet:
    """A fleet made up from `world`; `busiest` [O, M, S] is the largest demand of the record."""
    count = round(np.exp(rng.uniform(np.log(FEWEST_SITES), np.log(MOST_SITES))))
    picked = rng.integers(len(world.sites), size=count)
    demand = rng.lognormal(0.0, 0.5, len(world.origins))
    asked = busiest * demand[:, None, None]
    mix = asked.sum(axis=0) / asked.sum()
    made = _with_sites(world, picked, mix, rng)
    capacity = np.einsum("dg,gms->ms", made.constants.nodes, made.constants.node_rate_per_s)
    load = (asked.sum(axis=0) / np.clip(capacity, TINY, None)).sum()
    outage = None
    if rng.random() < OUTAGE:
        hours = rng.uniform(*OUTAGE_HOURS)
        length = max(1, round(hours * 3600.0 / world.epoch_s))
        outage = (int(rng.integers(count)), int(rng.integers(world.epochs_per_day)), length)
    return Fleet(
        make_pools(made, mix),
        torch.as_tensor(picked),
        torch.as_tensor(rng.integers(-SHIFT_DAYS, SHIFT_DAYS + 1, count)),
        tensor(demand * rng.uniform(*LOAD) / load),
        outage,
    )


def _with_sites(
    world: World, picked: np.ndarray, mix: np.ndarray, rng: np.random.Generator
) -> World:
    """`world` with a site for each of `picked`: nodes and round trips vary, the rest does not."""
    constants, count = world.constants, len(picked)
    usual = np.clip(constants.nodes.mean(axis=0), 1.0, None)
    nodes = np.round(
        usual * rng.lognormal(0.0, 0.5, (count, 1)) * rng.uniform(0.5, 1.5, (count, len(usual)))
    )
    lacks = rng.random(nodes.shape) < LACKS_TYPE
    lacks[np.arange(count), rng.integers(len(usual), size=count)] = False  # something is left
    nodes = np.where(lacks, 0.0, np.clip(nodes, 1.0, None))
    rtt_s = constants.rtt_s[:, picked] * rng.uniform(0.8, 1.3, (1, count))
    changed: Constants = replace(
        constants,
        nodes=nodes,
        rtt_s=rtt_s,
        site_pull=np.exp(-site_detour_s(rtt_s) / SPILL_REACH_S),
        usual_share=usual_share(mix, nodes, constants.node_rate_per_s),
    )
    return replace(world, sites=tuple(f"site {d}" for d in range(count)), constants=changed)


def as_tensors(inputs: Inputs) -> Inputs:
    """Inputs as the policy computes with them."""
    return convert(inputs, tensor)


def detached(state: State) -> State:
    """A state that slopes do not pass."""
    return convert(state, lambda values: values.detach())
