"""What passes between a scheduler and the simulator, as plain dataclasses of arrays.

Axes, in this order: B worlds of a batch, O origins, M models, S services, D sites, G node types.
Every array may be NumPy or torch; one object never mixes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

Array = Any

OBJECTIVES = ("ttft_s", "carbon_kg", "water_l", "cost_usd")


@dataclass(frozen=True)
class Inputs:
    """What the world does to the fleet in one epoch."""

    arrival_rate_per_s: Array  # [B, O, M, S]
    carbon_g_per_kwh: Array  # [B, D]
    price_usd_per_mwh: Array  # [B, D]
    pue: Array  # [B, D] facility energy per IT energy
    wue_l_per_kwh: Array  # [B, D] on-site water per IT energy
    ewif_l_per_kwh: Array  # [B, D] off-site water per facility energy
    aware_m3_per_m3: Array  # [B, D] scarcity factor
    available: Array  # [B, D, G] share of a pool's nodes that can run, 0 in an outage


@dataclass(frozen=True)
class Plan:
    """What a scheduler decides for an epoch."""

    routing: Array  # [B, O, M, S, D] shares, sum to one over D
    power: Array  # [B, D, G] share of each pool's nodes that is on


@dataclass(frozen=True)
class State:
    """What an epoch leaves to the next."""

    backlog: Array  # [B, D, M, S] requests waiting
    nodes_on: Array  # [B, D, G]
    loaded: Array  # [B, D, G, M] nodes on that hold each model


@dataclass(frozen=True)
class Outcome:
    """What an epoch cost. Totals are [B], site arrays [B, D]; see the names for units."""

    ttft_s: Array
    carbon_kg: Array
    water_l: Array
    cost_usd: Array
    energy_kwh: Array
    scarcity_water_l: Array
    arrived: Array
    served: Array
    dropped: Array
    waiting: Array
    utilisation: Array
    site_requests_per_s: Array
    site_ttft_s: Array
    site_utilisation: Array
    site_energy_kwh: Array
    site_carbon_kg: Array
    site_water_l: Array
    site_cost_usd: Array
    site_nodes_on: Array

    def objectives(self) -> tuple[Array, Array, Array, Array]:
        """The four objectives in the order of `OBJECTIVES`, each [B]."""
        return self.ttft_s, self.carbon_kg, self.water_l, self.cost_usd


Fields = TypeVar("Fields", Inputs, Plan, State, Outcome)


def row(batch: Fields, index: Any) -> Fields:
    """The same dataclass with every array indexed along the batch axis."""
    return replace(batch, **{f.name: getattr(batch, f.name)[index] for f in fields(batch)})


def joined(batches: Sequence[Fields]) -> Fields:
    """NumPy batches one after the other along the batch axis."""
    first = batches[0]
    return replace(
        first,
        **{f.name: np.concatenate([getattr(b, f.name) for b in batches]) for f in fields(first)},
    )


def convert(batch: Fields, function: Callable[[Array], Array]) -> Fields:
    """The same dataclass with `function` applied to every array."""
    return replace(batch, **{f.name: function(getattr(batch, f.name)) for f in fields(batch)})


def repeat(batch: Fields, times: int) -> Fields:
    """Each world of a NumPy batch `times` times in a row."""
    return convert(batch, lambda a: np.repeat(a, times, axis=0))
