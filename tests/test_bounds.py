"""Bounds: nothing beats them, they are what paper and pencil say, and they are not far away."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import fleets
import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from marlin.bounds.judges import fluid_bound, fluid_day, replay_bound, replay_day
from marlin.bounds.requests import asked, expected, mean_context_tokens, replay_work, single
from marlin.bounds.targets import ALONE, TARGETS, gap_closed, target_value
from marlin.bounds.work import fluid_work, most_draw_w
from marlin.fleet.contract import Inputs, Plan, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.replay import replay
from marlin.fleet.simulator import step
from marlin.fleet.world import World, build_world, chosen_profiles
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay.requests import Requests, requests

SIZES = st.tuples(
    st.integers(2, 5), st.integers(1, 2), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)
)
EPOCHS = 5
PLANS = ("random", "all on", "sized", "crammed", "by turns")


def random_truth(rng: np.random.Generator, world: World, load: float, outage: float) -> Inputs:
    """Epochs whose demand wanders about `load`, with prices that are often negative."""
    truth = fleets.random_inputs(rng, world, EPOCHS, load, outage)
    wander = rng.uniform(0.2, 1.8, (EPOCHS, 1, 1, 1))
    return replace(
        truth,
        arrival_rate_per_s=truth.arrival_rate_per_s * wander,
        price_usd_per_mwh=truth.price_usd_per_mwh - rng.choice([0.0, 60.0, 300.0]),
        available=truth.available * rng.choice([1.0, 1.0, 0.4], truth.available.shape),
    )


def plan_of(
    kind: str, rng: np.random.Generator, world: World, now: Inputs, factor: np.ndarray
) -> Plan:
    """A plan for one epoch: random, or greedy for `factor` [D] in some way."""
    if kind == "random":
        return fleets.random_plan(rng, world, 1, rng.choice([0.05, 1.0]), rng.choice([0.0, 0.5]))
    routing = rng.dirichlet(np.ones(len(world.sites)), (1, *world.class_shape))
    best = np.argsort(factor)
    routing = 0.0 * routing
    routing[..., best[: 1 + rng.integers(len(best))]] = 1.0
    routing /= routing.sum(axis=-1, keepdims=True)
    if kind == "all on":
        return Plan(routing, np.ones((1, *world.constants.nodes.shape)))
    load = 1.0 if kind == "crammed" else rng.uniform(0.3, 1.0)
    demand = now.arrival_rate_per_s * (rng.choice([0.7, 0.9, 1.0]) if kind == "by turns" else 1.0)
    return sized_plan(world, routing, demand, load, now.available)


def walk(
    world: World, truth: Inputs, rng: np.random.Generator, kind: str, factors: np.ndarray
) -> tuple[np.ndarray, float]:
    """Objectives [4] of a day, and the share of its requests that it does not serve."""
    state, outcomes, factor = world.idle_state(1), [], factors[rng.integers(len(factors))]
    for t in range(EPOCHS):
        now = row(truth, slice(t, t + 1))
        chosen = kind if kind != "by turns" or t % 2 else "crammed"
        state, outcome = step(world, state, plan_of(chosen, rng, world, now, factor[t]), now)
        outcomes.append(outcome)
    arrived = np.array([o.arrived[0] for o in outcomes])
    ttft_s = sum(o.ttft_s[0] * o.arrived[0] for o in outcomes) / arrived.sum()
    energy = [
        sum(getattr(o, name)[0] for o in outcomes) for name in ("carbon_kg", "water_l", "cost_usd")
    ]
    left = sum(o.dropped[0] for o in outcomes) + outcomes[-1].waiting[0]
    return np.array([ttft_s, *energy]), left / arrived.sum()


def assert_nothing_beats(seed, size, load, outage, kind) -> None:
    rng = np.random.default_rng(seed)
    world = fleets.random_world(rng, *size)
    if rng.random() < 0.3:  # a node that rests may draw more than one that idles
        resting = replace(world.constants, off_w=world.constants.off_w * 100.0)
        world = replace(world, constants=resting)
    if rng.random() < 0.3:  # requests that count as begun when they are done
        constants = replace(world.constants, awaited_tokens=world.constants.output_tokens)
        world = replace(world, constants=constants)
    truth = random_truth(rng, world, load, outage)
    day = fluid_day(world, fluid_work(world), truth)
    reached, unserved = walk(world, truth, rng, kind, day.it_factors)
    scale = np.abs(reached) + 1e-9
    for name, weights in TARGETS.items():
        bound = fluid_bound(world, day, truth, weights, scale, min(1.0, unserved + 1e-9))
        found = float(weights @ (reached / scale))
        assert bound.value <= found + 1e-9 * abs(found), (name, bound.value, found, unserved)


CASE = {
    "seed": st.integers(0, 2**31), "size": SIZES,
    "load": st.sampled_from([1e-4, 0.2, 0.6, 0.95, 1.6]),
    "outage": st.sampled_from([0.0, 0.0, 0.3]), "kind": st.sampled_from(PLANS),
}  # fmt: skip


@given(**CASE)
@settings(max_examples=25, deadline=None)
def test_no_plan_beats_the_bound_in_the_fluid_model(seed, size, load, outage, kind) -> None:
    assert_nothing_beats(seed, size, load, outage, kind)


@pytest.mark.extended
@given(**CASE)
@settings(max_examples=300, deadline=None)
def test_no_plan_of_many_beats_the_bound_in_the_fluid_model(seed, size, load, outage, kind) -> None:
    assert_nothing_beats(seed, size, load, outage, kind)


RUN = synthetic.run_config()
SMALL = build_world(synthetic.scenario(), RUN, synthetic.profiles())
PROFILES = chosen_profiles(RUN.fleet, RUN.serving, synthetic.profiles())


def random_requests(rng: np.random.Generator, world: World, count: int) -> Requests:
    """Requests of all classes over all epochs but for a pause at their end."""
    arrival_s = np.sort(rng.uniform(0.0, EPOCHS * world.epoch_s - 1.0, count))
    if rng.random() < 0.5:  # all at once
        arrival_s = np.sort(rng.choice(arrival_s, 3)[rng.integers(3, size=count)])
    prompt = np.maximum(rng.lognormal(6.0, rng.choice([0.1, 1.2]), count).astype(int), 1)
    output = np.maximum(rng.lognormal(4.0, rng.choice([0.1, 1.2]), count).astype(int), 1)
    classes = [rng.integers(size, size=count) for size in world.class_shape]
    return requests(arrival_s, prompt.clip(max=20_000), output.clip(max=2_000), *classes)


def small_fleet(rng: np.random.Generator) -> tuple[World, list[list[ServingProfile]], int]:
    """Up to three sites with a node or two, short epochs, replicas that hold few sequences."""
    nodes = rng.integers(0, 2, SMALL.constants.nodes.shape).astype(float)
    nodes[rng.integers(len(nodes)), rng.integers(2)] = 1.0
    constants = replace(SMALL.constants, nodes=nodes)
    world = replace(SMALL, constants=constants, epoch_s=120.0, patience_s=60.0)
    held = float(rng.choice([25_000.0, 450_000.0]))
    profiles = [[replace(p, kv_capacity_tokens=held) for p in row] for row in PROFILES]
    return world, profiles, int(rng.choice([2, 16, 256]))


def assert_replay_does_not_beat(seed: int, count: int, outage: float, kind: str) -> None:
    rng = np.random.default_rng(seed)
    world, profiles, max_batch = small_fleet(rng)
    truth = random_truth(rng, world, 0.2, outage)
    stream = random_requests(rng, world, count)
    index = np.arange(EPOCHS)
    day_factors = rng.uniform(0.0, 1.0, (EPOCHS, len(world.sites)))
    plans = [plan_of(kind, rng, world, row(truth, slice(t, t + 1)), day_factors[t]) for t in index]
    plan = Plan(
        np.concatenate([p.routing for p in plans]),
        np.concatenate([p.power for p in plans]).clip(max=1.0),
    )
    kept: list[pd.DataFrame] = []
    found = replay(world, profiles, max_batch, plan, truth, [stream], keep=kept.append).summary
    table = pd.concat(kept).sort_values("request")
    finish_s = table["arrival_s"] + table["e2e_s"].fillna(0.0)
    late = finish_s // world.epoch_s > table["arrival_s"] // world.epoch_s + 1
    assume(not late.any())
    answered = chosen_requests(stream, (table["status"] != "rejected").to_numpy())
    served = chosen_requests(stream, (table["status"] == "served").to_numpy())
    assume(len(answered))
    work_of = asked(world, profiles, single(served, world.epoch_s), truth.available)
    begun = asked(world, profiles, single(answered, world.epoch_s), truth.available)
    both = replace(begun, units_per_s=work_of.units_per_s)
    work = replay_work(world, profiles, max_batch, mean_context_tokens(both))
    day = replay_day(world, work, truth, both)
    reached = np.array(
        [found["ttft_mean_s"], found["carbon_kg"], found["water_l"], found["cost_usd"]]
    )
    scale = np.abs(reached) + 1e-9
    for name, weights in TARGETS.items():
        bound, value = replay_bound(day, both, weights, scale), float(weights @ (reached / scale))
        assert bound.value <= value + 1e-9 * abs(value), (name, bound.value, value)


def chosen_requests(stream: Requests, wanted: np.ndarray) -> Requests:
    """Those requests of a stream that are wanted [N]."""
    return replace(stream, **{f.name: getattr(stream, f.name)[wanted] for f in fields(stream)})


REPLAYED = {
    "seed": st.integers(0, 2**31), "count": st.sampled_from([1, 100, 3000, 20_000, 60_000]),
    "outage": st.sampled_from([0.0, 0.0, 0.3]), "kind": st.sampled_from(PLANS),
}  # fmt: skip


@given(**REPLAYED)
@settings(max_examples=15, deadline=None)
def test_no_plan_beats_the_bound_in_replay(seed, count, outage, kind) -> None:
    assert_replay_does_not_beat(seed, count, outage, kind)


@pytest.mark.extended
@given(**REPLAYED)
@settings(max_examples=200, deadline=None)
def test_no_plan_of_many_beats_the_bound_in_replay(seed, count, outage, kind) -> None:
    assert_replay_does_not_beat(seed, count, outage, kind)
