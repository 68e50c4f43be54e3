"""Reference points that can be reached: what a day costs with perfect knowledge of some kind.

They are no bounds. `mpc_perfect` knows each epoch's truth when it plans it, and nothing later;
`best_static` knows the whole day, but routes all of it by one split. Both choose by the fluid model
and give the day as it plays it, which replay can score too.
"""

from __future__ import annotations

import numpy as np

from marlin.bounds.judges import fluid_day
from marlin.bounds.programs import Day
from marlin.bounds.routes import Routes
from marlin.fleet.contract import Inputs, Outcome, Plan, convert, joined, repeat, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.judge import Played

LOADS = np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98])  # of nodes that are on
FILLS = (0.4, 0.6, 0.85)  # of sites by the mean demand of a day
TIE = 1e-6  # weight of TTFT, beside energy, that decides between routes that cost the same
LEFT_OUT = 100.0  # times the dearest epoch there could be, shared out: cost of finding no room


def mpc_perfect(
    world: World, day: Day, truth: Inputs, weights: np.ndarray, scale: np.ndarray
) -> Played:
    """The day at `truth` [T, ...], planned epoch by epoch, one step ahead.

    Routes are those of the epoch's linear program within the dispatcher's ceiling, those of the
    epoch before, or half-way; nodes are sized for one of `LOADS`, with or without those that were
    on before. Of the plans that serve most, `step` chooses by the weighted sum of objectives over
    `scale`, both [4].
    """
    share, total = weights / scale, truth.arrival_rate_per_s.sum()
    factor = np.tensordot(share[1:], day.it_factors, 1)
    routes = Routes.of(world, day, truth)
    state, last = world.idle_state(1), None
    chosen_plans, states, outcomes = [], [], []
    for t in range(len(factor)):
        now = row(truth, slice(t, t + 1))
        part = now.arrival_rate_per_s.sum() / total
        best = _routing(world, routes, t, share[0], factor[t], world.utilisation_ceiling)
        last = best if last is None else last
        tried = np.stack([best, last, 0.5 * (best + last)])
        plans = _sized(world, tried, now, factor[t], state.nodes_on)
        count = len(plans.power)
        after, outcome = step(world, repeat(state, count), plans, repeat(now, count))
        ttft_s, *energy = outcome.objectives()
        score = np.stack([part * ttft_s, *energy], axis=-1) @ share
        at = _least(score, (outcome.dropped + outcome.waiting) / outcome.arrived.clip(min=TINY))
        chosen_plans.append(row(plans, at))
        states.append(state)
        outcomes.append(row(outcome, at))
        state, last = row(after, at), chosen_plans[-1].routing[0]
    return Played(joined(chosen_plans), joined(states), truth, outcomes)


def best_static(
    world: World, day: Day, truth: Inputs, weights: np.ndarray, scale: np.ndarray
) -> Played:
    """The day at `truth` [T, ...] under its best single split and load of the nodes that are on.

    Splits are those of the linear program of the mean epoch with sites filled to each of `FILLS`,
    loads are `LOADS`, or all nodes on; the power-down layer sizes every epoch by its true demand.
    """
    share = weights / scale
    mean = convert(truth, lambda values: values.mean(axis=0, keepdims=True))
    mean_day = fluid_day(world, day.work, mean)
    routes = Routes.of(world, mean_day, mean)
    mean_factor = np.tensordot(share[1:], mean_day.it_factors, 1)[0]
    part = share[0] / len(truth.arrival_rate_per_s)
    splits = np.stack([_routing(world, routes, 0, part, mean_factor, fill) for fill in FILLS])
    factor = np.tensordot(share[1:], day.it_factors, 1)
    state = world.idle_state(2 * len(FILLS) * len(LOADS))
    tried, states, outcomes = [], [], []
    for t in range(len(factor)):
        now = row(truth, slice(t, t + 1))
        plans = _sized(world, splits, now, factor[t], world.constants.nodes[None])
        tried.append(plans)
        states.append(state)
        state, outcome = step(world, state, plans, repeat(now, len(plans.power)))
        outcomes.append(outcome)
    objectives, unserved_share = _reached(outcomes)
    at = _least(objectives @ share, unserved_share)
    plans = joined([row(batch, at) for batch in tried])
    before = joined([row(batch, at) for batch in states])
    return Played(plans, before, truth, [row(batch, at) for batch in outcomes])


def _least(score: np.ndarray, unserved_share: np.ndarray) -> slice:
    """Where the least score is, among those that leave least unserved but for rounding."""
    least = unserved_share <= unserved_share.min() + 1e-9
    at = int(np.argmin(np.where(least, score, np.inf)))
    return slice(at, at + 1)


def _routing(
    world: World, routes: Routes, t: int, per_s: float, factor: np.ndarray, filled: float
) -> np.ndarray:
    """Routing [O, M, S, D] of the least routes of epoch t; what finds no room goes by capacity."""
    day = routes.day
    nodes = day.nodes[t].sum(axis=1)
    dearest = np.abs(factor).max() * day.kwh_per_w * day.work.most_w.max() * nodes.sum()
    per_s = max(per_s, TIE * dearest)
    outside = LEFT_OUT * (dearest + per_s) / routes.amount[t].sum().clip(min=TINY)
    shares = routes.least(t, per_s, factor, outside, filled).shares.clip(min=0.0)
    by_site = shares.reshape(len(shares), len(nodes), -1).sum(axis=2)
    by_site += (1.0 - by_site.sum(axis=1, keepdims=True)).clip(min=0.0) * (nodes + TINY)
    by_site /= by_site.sum(axis=1, keepdims=True)
    return by_site.reshape(*world.class_shape, -1)


def _sized(
    world: World, routing: np.ndarray, now: Inputs, factor: np.ndarray, kept: np.ndarray
) -> Plan:
    """Every routing [N, O, M, S, D] sized for each of `LOADS`, without and with `kept` [1, D, G].

    `kept` are nodes that stay on. Where energy earns money, all do.
    """
    count = len(routing)
    routing = routing.repeat(len(LOADS), axis=0)
    load = np.tile(LOADS, count)[:, None]
    demand = now.arrival_rate_per_s.repeat(len(load), axis=0)
    plan = sized_plan(world, routing, demand, load, now.available)
    earning = (factor < 0.0)[:, None]
    power = np.where(earning, 1.0, plan.power)
    there = world.constants.nodes * now.available
    warm = (kept / np.maximum(there, TINY)).clip(max=1.0)
    return Plan(
        np.concatenate([plan.routing, plan.routing]),
        np.concatenate([power, np.maximum(power, warm)]),
    )


def _reached(outcomes: list[Outcome]) -> tuple[np.ndarray, np.ndarray]:
    """Objectives [N, 4] of each world's day, and the share [N] dropped or waiting at its end.

    TTFT is the mean over requests.
    """
    ttft_s, *energy = (
        np.stack(values) for values in zip(*(o.objectives() for o in outcomes), strict=True)
    )
    arrived = np.stack([o.arrived for o in outcomes])
    mean_s = (ttft_s * arrived).sum(axis=0) / arrived.sum(axis=0)
    objectives = np.stack([mean_s, *(values.sum(axis=0) for values in energy)], axis=-1)
    left = sum(o.dropped for o in outcomes) + outcomes[-1].waiting
    return objectives, left / arrived.sum(axis=0)
