"""Bounds of a day under each judge: the fluid model and replay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marlin.bounds.programs import Day, least_energy, lowered
from marlin.bounds.requests import Asked
from marlin.bounds.routes import Routes
from marlin.bounds.work import Work
from marlin.fleet.contract import Inputs
from marlin.fleet.world import World
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh


@dataclass(frozen=True)
class Bound:
    """A value that no plan goes below, and the objectives [4] of the relaxed plan that has it.

    An objective that the relaxed plan says nothing about is NaN.
    """

    value: float
    objectives: np.ndarray


def fluid_day(world: World, work: Work, truth: Inputs) -> Day:
    """A day of the fluid model, from an idle fleet: classes are those of requests, K = M S."""
    nodes = world.constants.nodes * truth.available
    classes = truth.arrival_rate_per_s.sum(axis=1)
    per_done = np.full(len(nodes), world.patience_s / world.epoch_s)
    per_done[-1] = 0.0
    demand_per_s = classes.reshape(len(classes), -1)
    return Day(
        work=work,
        epoch_s=world.epoch_s,
        demand_per_s=demand_per_s,
        nodes=nodes,
        floor_w=nodes @ work.rest_w,
        ceiling_w=nodes @ work.most_w,
        carried=0.0 * demand_per_s,
        carried_per_done=per_done,
        it_factors=_it_factors(truth),
    )


def replay_day(world: World, work: Work, truth: Inputs, given: Asked) -> Day:
    """A day of replay and the time after it in which open requests finish, at the last signals.

    Work is done in the epoch of its arrival or in the next. What a node holds when it is switched
    off or fails, it finishes: every node may work at any time.
    """
    nodes = np.broadcast_to(world.constants.nodes, truth.available.shape)
    carried = given.units_per_s * world.epoch_s

    def after(values: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.concatenate([values, last[None]])

    factors = _it_factors(truth)
    resting_w = (nodes * truth.available) @ work.rest_w
    return Day(
        work=work,
        epoch_s=world.epoch_s,
        demand_per_s=after(given.units_per_s, 0.0 * given.units_per_s[-1]),
        nodes=after(nodes, nodes[-1]),
        floor_w=after(resting_w, 0.0 * resting_w[-1]),
        ceiling_w=after(nodes @ work.most_w, nodes[-1] @ work.most_w),
        carried=after(carried, 0.0 * carried[-1]),
        carried_per_done=np.zeros(len(nodes) + 1),
        it_factors=np.concatenate([factors, factors[:, -1:]], axis=1),
    )


def _it_factors(truth: Inputs) -> np.ndarray:
    """Kilograms, litres and dollars of a kWh of IT energy, [3, T, D]."""
    return np.stack(
        [carbon_g_per_kwh(truth) / 1e3, water_l_per_kwh(truth), price_usd_per_mwh(truth) / 1e3]
    )


def fluid_bound(
    world: World,
    day: Day,
    truth: Inputs,
    weights: np.ndarray,
    scale: np.ndarray,
    unserved_share: float = 0.0,
) -> Bound:
    """Least weighted sum of objectives over `scale`, both [4], under the fluid model.

    With no weight on TTFT it holds for plans that leave at most `unserved_share` of the day's
    requests dropped or waiting at its end; with any, for all plans.
    """
    share = weights / scale
    factor = np.tensordot(share[1:], day.it_factors, 1)
    if weights[0] == 0.0:
        return _bound(day, factor, share, least_energy(day, factor, unserved_share), np.nan)
    routes = Routes.of(world, day, truth)
    outside = share[0] / routes.requests * routes.outside_s
    found = [routes.least(t, share[0], factor[t], outside) for t in range(len(factor))]
    ttft_s = sum(epoch.ttft_s for epoch in found) / routes.requests
    return _bound(day, factor, share, np.stack([epoch.drawn_w for epoch in found]), ttft_s)


def replay_bound(day: Day, given: Asked, weights: np.ndarray, scale: np.ndarray) -> Bound:
    """The same under replay, for plans under which nothing is dropped (TTFT alone: for all).

    Nothing ties the energy of a request to its latency here, so the two are bounded apart.
    """
    share = weights / scale
    factor = np.tensordot(share[1:], day.it_factors, 1)
    drawn_w = least_energy(day, factor) if share[1:].any() else 0.0 * factor
    return _bound(day, factor, share, drawn_w, given.latency_s.sum() / given.arrived.sum())


def _bound(
    day: Day, factor: np.ndarray, share: np.ndarray, drawn_w: np.ndarray, ttft_s: float
) -> Bound:
    """The bound that a solution gives."""
    it_kwh = day.it_kwh(factor, drawn_w)
    value = float((factor * it_kwh).sum())
    if share[0]:
        value += share[0] * ttft_s
    energy = (day.it_factors * it_kwh).sum(axis=(1, 2))
    return Bound(lowered(value), np.array([ttft_s, *energy]))
