"""Faults as inputs: outages, lost pools, missing signals, surges of demand, shocks of price.

They change what comes true; a scheduler learns of them as an operator would. An outage is forecast
to last once it has begun. A missing signal is seen at its last value, and is called stale after a
limit; scoring goes on with the truth.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from marlin.config import Fault, FaultsConfig
from marlin.errors import UserError
from marlin.fleet.contract import Inputs

if TYPE_CHECKING:
    from marlin.fleet.world import Epochs, World

SIGNALS = {"carbon": "carbon_g_per_kwh", "price": "price_usd_per_mwh"}
DAY = np.timedelta64(24, "h")


def with_faults(epochs: Epochs, faults: FaultsConfig, world: World, test: int) -> Epochs:
    """The epochs with every fault in effect, and which epoch each missing signal was last seen in.

    Dated faults act where they are dated; those with a time of day act on every day whose split is
    `test`. Faults of one kind that overlap multiply. Raises UserError for an unknown site, node
    type or origin, a fault outside the scenario and a signal with no value before it is missing.
    """
    rate = epochs.inputs.arrival_rate_per_s.copy()
    price = epochs.inputs.price_usd_per_mwh.copy()
    available = epochs.inputs.available.copy()
    lost = {name: np.zeros(available.shape[:2], dtype=bool) for name in SIGNALS.values()}
    for number, fault in enumerate(faults.events, start=1):
        where = f"faults={faults.name}, event {number}"
        now = _active(epochs.time, epochs.split == test, fault, where)
        sites = _chosen(fault.site, world.sites, f"{where}: site")
        if fault.kind == "demand_surge":
            origins = _chosen(fault.origin, world.origins, f"{where}: origin")
            rate[np.ix_(now, origins)] *= fault.factor
        elif fault.kind == "price_shock":
            price[np.ix_(now, sites)] *= fault.factor
        elif fault.kind == "signal_missing":
            lost[SIGNALS[str(fault.signal)]][np.ix_(now, sites)] = True
        else:
            pools = _chosen(fault.node_type, world.node_types, f"{where}: node type")
            available[np.ix_(now, sites, pools)] *= 1 - fault.share
    inputs = replace(
        epochs.inputs, arrival_rate_per_s=rate, price_usd_per_mwh=price, available=available
    )
    seen = {name: last_seen(mask) for name, mask in lost.items() if mask.any()}
    return replace(epochs, inputs=inputs, last_seen=seen)


def last_seen(missing: np.ndarray) -> np.ndarray:
    """Index of the last epoch up to each, [T, D], in which a signal was not `missing` [T, D].

    Raises UserError if it is missing from the first epoch on.
    """
    epoch = np.arange(len(missing))[:, None]
    seen = np.maximum.accumulate(np.where(missing, -1, epoch), axis=0)
    if (seen < 0).any():
        raise UserError("faults: a signal is missing from the first epoch on: let it start later")
    return seen


def observed(epochs: Epochs) -> Inputs:
    """What is measured in each epoch: the truth, with missing signals held at their last value."""
    held = {
        name: np.take_along_axis(getattr(epochs.inputs, name), seen, axis=0)
        for name, seen in epochs.last_seen.items()
    }
    return replace(epochs.inputs, **held)


def stale_sites(
    epochs: Epochs, epoch: int, after_h: float, sites: Sequence[str]
) -> tuple[str, ...]:
    """Sites of which a signal was, in `epoch`, last seen more than `after_h` hours before."""
    limit = np.timedelta64(round(3600 * after_h), "s")
    flags = np.zeros(len(sites), dtype=bool)
    for seen in epochs.last_seen.values():
        flags |= epochs.time[epoch] - epochs.time[seen[epoch]] > limit
    return tuple(site for site, flag in zip(sites, flags, strict=True) if flag)


def _active(time: np.ndarray, tested: np.ndarray, fault: Fault, where: str) -> np.ndarray:
    """Indices of the epochs in which the fault acts, by their starts."""
    length = np.timedelta64(round(3600 * fault.hours), "s")
    if fault.is_dated:
        start = np.datetime64(fault.start)
        active = (time >= start) & (time < start + length)
    else:
        hour, minute = fault.start.split(":")
        start = np.timedelta64(60 * int(hour) + int(minute), "m")
        since = (time - time.astype("datetime64[D]") - start) % DAY
        active = (since < length) & tested
    if not active.any():
        raise UserError(
            f"{where} starts {fault.start}, outside the scenario's epochs "
            f"({time[0]} to {time[-1]}): give it a time within them"
        )
    return np.flatnonzero(active)


def _chosen(name: str | None, known: Sequence[str], what: str) -> np.ndarray:
    """Position of `name`, or all positions without one; UserError names the nearest."""
    if name is None:
        return np.arange(len(known))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UserError(f"{what} {name!r} is unknown: the nearest is {near!r}")
    return np.array([known.index(name)])
