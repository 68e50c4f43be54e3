"""Bounds of a day under each judge: the fluid model and replay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marlin.bounds.programs import Day, least_energy, least_routes, lowered
from marlin.bounds.requests import Asked
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
        used = least_energy(day, factor, unserved_share)
        return _bound(day, factor, share, used, np.nan)
    routes = Routes.of(world, truth)
    used, total_s = np.zeros((*day.nodes.shape, day.demand_per_s.shape[1])), 0.0
    for t in range(len(day.nodes)):
        chosen = routes.cheapest(day, t, share[0], factor[t])
        used[t] = routes.used(day, t, chosen)
        total_s += routes.seconds(t, chosen)
    return _bound(day, factor, share, used, total_s / routes.requests)


def replay_bound(day: Day, given: Asked, weights: np.ndarray, scale: np.ndarray) -> Bound:
    """The same under replay, for plans under which nothing is dropped (TTFT alone: for all).

    Nothing ties the energy of a request to its latency here, so the two are bounded apart.
    """
    share = weights / scale
    factor = np.tensordot(share[1:], day.it_factors, 1)
    used = np.zeros((*day.nodes.shape, day.demand_per_s.shape[1]))
    if share[1:].any():
        used = least_energy(day, factor)
    return _bound(day, factor, share, used, given.latency_s.sum() / given.arrived.sum())


def _bound(
    day: Day, factor: np.ndarray, share: np.ndarray, used: np.ndarray, ttft_s: float
) -> Bound:
    """The bound that a solution gives."""
    it_kwh = day.it_kwh(factor, used)
    value = float((factor * it_kwh).sum())
    if share[0]:
        value += share[0] * ttft_s
    energy = (day.it_factors * it_kwh).sum(axis=(1, 2))
    return Bound(lowered(value), np.array([ttft_s, *energy]))


@dataclass(frozen=True)
class Routes:
    """Requests of a day by class, C = O M S, and how soon a pool can begin them at best."""

    amount: np.ndarray  # [T, C] requests of an epoch
    latency_s: np.ndarray  # [C, P]
    outside_s: float  # what a request counts with, at least, that its epoch does not serve

    @property
    def requests(self) -> float:
        """Of the whole day."""
        return float(self.amount.sum())

    @staticmethod
    def of(world: World, truth: Inputs) -> Routes:
        """Round trip, own prefill, tokens that are awaited at the speed of an empty replica."""
        constants = world.constants
        origins, models, services = world.class_shape
        first_s = constants.prefill_s + constants.awaited_tokens * constants.decode_d0_s[..., None]
        shape = (origins, models, services, len(world.sites), len(world.node_types))
        latency_s = np.broadcast_to(
            constants.rtt_s[:, None, None, :, None] + np.moveaxis(first_s, 0, -1)[:, :, None, :],
            shape,
        ).reshape(origins * models * services, -1)
        outside_s = min(world.patience_s, 0.5 * world.epoch_s)
        rate = truth.arrival_rate_per_s
        amount = rate.reshape(len(rate), -1) * world.epoch_s
        return Routes(amount, np.minimum(latency_s, outside_s), outside_s)

    def loads(self, day: Day, t: int) -> np.ndarray:
        """Nodes that the whole of a class would keep at work in a pool, [C, P]."""
        repeats = len(self.latency_s) // day.work.per_node_s.shape[1]
        per_node_s = np.tile(day.work.per_node_s.T, (repeats, day.nodes.shape[1]))
        return self.amount[t][:, None] / day.epoch_s / per_node_s

    def costs(self, day: Day, t: int, per_s: float, factor: np.ndarray) -> np.ndarray:
        """Cost [C, P] of the whole of a class in a pool in epoch t.

        It is `per_s` x what it adds to the day's mean TTFT, + `factor` [D] x its IT energy.
        """
        node_h = factor.clip(min=0.0)[:, None, None] * day.work.work_w * day.kwh_per_w
        by_class = node_h.reshape(-1, node_h.shape[-1]).T  # [K, P]
        load = self.loads(day, t)
        repeats = len(load) // len(by_class)
        waited = per_s / self.requests * self.amount[t][:, None] * self.latency_s
        return waited + load * np.tile(by_class, (repeats, 1))

    def cheapest(self, day: Day, t: int, per_s: float, factor: np.ndarray) -> np.ndarray:
        """Shares [C, P] of epoch t at the least cost; what is left is served by no pool in it."""
        outside = per_s / self.requests * self.amount[t] * self.outside_s
        cost = self.costs(day, t, per_s, factor)
        return least_routes(cost, self.loads(day, t), day.nodes[t].ravel(), outside)

    def used(self, day: Day, t: int, shares: np.ndarray) -> np.ndarray:
        """Nodes at work [D, G, K] under shares [C, P]."""
        classes = day.demand_per_s.shape[1]
        nodes = (shares * self.loads(day, t)).reshape(-1, classes, shares.shape[1]).sum(axis=0)
        return nodes.T.reshape(*day.nodes.shape[1:], classes)

    def seconds(self, t: int, shares: np.ndarray) -> float:
        """TTFT of all requests of epoch t together under shares [C, P]."""
        inside = (shares * self.latency_s).sum(axis=1) + (1.0 - shares.sum(axis=1)) * self.outside_s
        return float(self.amount[t] @ inside)
