"""Bounds: nothing beats them, they are what paper and pencil say, and they are not far away."""

from __future__ import annotations

from dataclasses import fields, replace

import fleets
import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from marlin import compose, inputs, plan
from marlin.bounds.__main__ import bounds
from marlin.bounds.judges import fluid_bound, fluid_day, replay_bound, replay_day
from marlin.bounds.requests import asked, expected, mean_context_tokens, replay_work, single
from marlin.bounds.targets import ALONE, SCORED, TARGETS, target_value
from marlin.bounds.work import MARGIN, fluid_work
from marlin.config import ScoringConfig
from marlin.errors import UserError
from marlin.evaluate import judged, run_day, summary
from marlin.fleet.contract import OBJECTIVES, Inputs, Plan, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.replay import replay
from marlin.fleet.simulator import step
from marlin.fleet.world import World, build_epochs, build_world, chosen_profiles
from marlin.judge import Judge
from marlin.schedulers.weighted_round_robin import WeightedRoundRobin
from marlin.serving.profiles import ServingProfile
from marlin.serving.replay.cluster import STEP_TOKENS
from marlin.serving.replay.requests import Requests, requests
from marlin.task import Task, forecast_inputs

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
    chosen = Plan(
        np.concatenate([p.routing for p in plans]),
        np.concatenate([p.power for p in plans]).clip(max=1.0),
    )
    kept: list[pd.DataFrame] = []
    found = replay(world, profiles, max_batch, chosen, truth, [stream], keep=kept.append).summary
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
    longest = max(STEP_TOKENS, int((stream.prompt_tokens + stream.output_tokens).max()))
    work = replay_work(world, profiles, max_batch, mean_context_tokens(both), longest)
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


def test_a_full_node_comes_close_to_the_bound_of_replay() -> None:
    sections = synthetic.run_config().model_dump()
    serving = sections["serving"] | {"models": sections["serving"]["models"][:1]}
    run = synthetic.run_config(serving=serving)
    world = build_world(synthetic.scenario().isel(model=[0]), run, synthetic.profiles())
    nodes = np.zeros_like(world.constants.nodes)
    nodes[0, 1] = 1.0
    world = replace(world, constants=replace(world.constants, nodes=nodes), epoch_s=300.0)
    profiles = chosen_profiles(run.fleet, run.serving, synthetic.profiles())
    rng = np.random.default_rng(0)
    stream = requests(
        np.sort(rng.uniform(0, 299, 60_000)),
        rng.integers(200, 1800, 60_000),
        rng.integers(50, 350, 60_000),
    )
    truth = fleets.random_inputs(rng, world, 1)
    plan = Plan(
        np.broadcast_to(np.array([1.0, 0.0, 0.0]), (1, *world.class_shape, 3)), np.ones((1, 3, 2))
    )
    found = replay(world, profiles, 256, plan, truth, [stream]).summary
    asks = asked(world, profiles, single(stream, world.epoch_s), truth.available)
    work = replay_work(world, profiles, 256, mean_context_tokens(asks))
    bound = replay_bound(replay_day(world, work, truth, asks), asks, TARGETS["carbon"], np.ones(4))
    assert 1.0 <= found["carbon_kg"] / bound.value <= 1.15


def plain_world(origins: int = 1) -> World:
    """Two sites of ten nodes of one type, one model, one service, in round numbers.

    A full replica's GPUs are at their limit of 400 W all the time: a node of eight draws 5,000 W.
    """
    world = fleets.random_world(np.random.default_rng(0), 2, 1, 1, 1, origins)
    one, each = np.ones(1), np.ones((1, 1))
    constants = replace(
        world.constants,
        nodes=np.full((2, 1), 10.0),
        node_rate_per_s=np.full((1, 1, 1), 8.0),
        replicas_per_node=8.0 * each, gpus_per_replica=each,
        prefill_s=np.full((1, 1, 1), 0.5), work_s=np.ones((1, 1, 1)),
        decode_d0_s=0.1 * each, decode_slope_s=np.full((1, 1, 1), 1e-4),
        output_tokens=100.0 * one, slots=np.full((1, 1, 1), 1000.0 / 49.0),
        gpu_context_w=100.0 * one, gpu_tdp_w=400.0 * one,
        gpu_w_per_tb_per_s=1e9 * each, gpu_w_per_tflop_per_s=1e9 * each,
        gpus=8.0 * one, base_idle_w=900.0 * one, base_full_w=1800.0 * one, off_w=25.0 * one,
    )  # fmt: skip
    return replace(world, constants=constants)


def plain_truth(world: World, per_s: list[float], price: tuple[float, float]) -> Inputs:
    """Epochs with demand `per_s` of each origin; IT energy costs `price` [2] USD/MWh."""
    epochs = len(per_s)
    level = np.ones((epochs, 2))
    demand = np.repeat(np.array(per_s)[:, None, None, None], len(world.origins), axis=1)
    return Inputs(
        arrival_rate_per_s=demand,
        carbon_g_per_kwh=500.0 * level,
        price_usd_per_mwh=np.array(price) * level,
        pue=level,
        wue_l_per_kwh=level,
        ewif_l_per_kwh=level,
        aware_m3_per_m3=level,
        available=np.ones((epochs, 2, 1)),
    )


def test_the_cheap_site_is_filled_first_and_what_rests_is_paid_too() -> None:
    world = plain_world()
    work = fluid_work(world)
    # A little less than 5,000 W: there is always a chance that no sequence is in decode.
    full_w = float(work.work_w[0, 0] + 25.0)
    assert full_w == pytest.approx(5000.0, rel=0.02)
    # 120 requests a second fill 15 nodes: ten at 20 USD/MWh, five at 80.
    truth = plain_truth(world, [120.0], (80.0, 20.0))
    bound = fluid_bound(world, fluid_day(world, work, truth), truth, TARGETS["cost"], np.ones(4))
    kw = (10 * 20.0 * full_w + 5 * 80.0 * full_w + 5 * 80.0 * 25.0) / 1000
    assert bound.value == pytest.approx(kw * 0.25 / 1000, rel=1e-5)
    plan = Plan(np.array([1 / 3, 2 / 3]).reshape(1, 1, 1, 1, 2), np.array([[[0.5], [1.0]]]))
    _, outcome = step(world, world.idle_state(1), plan, truth)
    assert outcome.cost_usd[0] == pytest.approx(bound.value, rel=0.02)
    assert outcome.cost_usd[0] >= bound.value


def test_the_near_site_takes_what_it_can() -> None:
    world = plain_world()
    constants = replace(world.constants, rtt_s=np.array([[0.1, 0.3]]))
    constants = replace(constants, decode_d0_s=1e-9 * constants.decode_d0_s)
    world = replace(world, constants=constants)
    truth = plain_truth(world, [40.0, 120.0], (1.0, 1.0))
    day = fluid_day(world, fluid_work(world), truth)
    bound = fluid_bound(world, day, truth, TARGETS["ttft"], np.ones(4))
    # Prefill takes 0.5 s; near ones number 40 and 80 a second, 40 have to go far.
    on_paper_s = (120 * 0.6 + 40 * 0.8) / 160
    assert on_paper_s * (1.0 - 2 * MARGIN) <= bound.value <= on_paper_s
    assert bound.objectives[0] == pytest.approx(bound.value, rel=1e-5)


def test_latency_grows_with_load_as_in_the_fluid_model() -> None:
    world = plain_world()
    constants = replace(world.constants, rtt_s=np.zeros((1, 2)), nodes=np.full((2, 1), 500.0))
    world = replace(world, constants=constants)
    plan = Plan(np.full((1, 1, 1, 1, 2), 0.5), np.ones((1, 2, 1)))
    for load in (0.05, 0.3, 0.6, 0.9):
        truth = plain_truth(world, [8000.0 * load], (1.0, 1.0))
        day = fluid_day(world, fluid_work(world), truth)
        bound = fluid_bound(world, day, truth, TARGETS["ttft"], np.ones(4)).value
        _, outcome = step(world, world.idle_state(1), plan, truth)
        assert bound <= outcome.ttft_s[0] <= 1.03 * bound


def test_a_negative_price_counts_all_that_could_be_drawn() -> None:
    world = plain_world()
    truth = plain_truth(world, [8.0], (-50.0, 20.0))
    day = fluid_day(world, fluid_work(world), truth)
    bound = fluid_bound(world, day, truth, TARGETS["cost"], np.ones(4)).value
    most_kw = float(day.ceiling_w[0, 0]) / 1000
    assert most_kw == pytest.approx(50.0, rel=0.02)
    assert bound == pytest.approx((-50.0 * most_kw + 20.0 * 10 * 0.025) * 0.25 / 1000, rel=1e-5)
    # Keeping nodes on earns money: the least energy that serves the demand is no bound on cost.
    plan = Plan(np.array([1.0, 0.0]).reshape(1, 1, 1, 1, 2), np.array([[[1.0], [0.0]]]))
    _, outcome = step(world, world.idle_state(1), plan, truth)
    least_kw = (10 * 25.0 + float(day.work.work_w[0, 0])) / 1000
    frugal_usd = (-50.0 * least_kw + 20.0 * 10 * 0.025) * 0.25 / 1000
    assert bound <= outcome.cost_usd[0] < frugal_usd


def test_a_backlog_carries_at_most_what_patience_allows() -> None:
    world = plain_world()
    truth = plain_truth(world, [64.0, 1.0], (50.0, 50.0))
    truth = replace(truth, price_usd_per_mwh=np.array([[50.0, 50.0], [0.0, 0.0]]))
    day = fluid_day(world, fluid_work(world), truth)
    bound = fluid_bound(world, day, truth, TARGETS["cost"], np.ones(4)).value
    # A third of what is done (300 s of 900) may wait: three quarters of 64 a second fill 6 nodes.
    kw = (20 * 25.0 + 6 * float(day.work.work_w[0, 0])) / 1000
    assert bound == pytest.approx(kw * 0.25 * 50.0 / 1000, rel=1e-5)


def test_what_need_not_be_served_costs_nothing() -> None:
    world = plain_world()
    truth = plain_truth(world, [64.0], (50.0, 50.0))
    day = fluid_day(world, fluid_work(world), truth)
    values = [
        fluid_bound(world, day, truth, TARGETS["cost"], np.ones(4), share).value
        for share in (0.0, 0.5, 1.0)
    ]
    resting = 20 * 25.0 * 0.25 * 50.0 / 1e6
    assert values[2] == pytest.approx(resting, rel=1e-5)
    assert values[1] == pytest.approx((values[0] + values[2]) / 2, rel=1e-5)


def test_demand_beyond_the_fleet_has_no_bound_without_drops() -> None:
    world = plain_world()
    truth = plain_truth(world, [400.0], (50.0, 50.0))
    day = fluid_day(world, fluid_work(world), truth)
    with pytest.raises(UserError, match="cannot serve all"):
        fluid_bound(world, day, truth, TARGETS["carbon"], np.ones(4))
    ttft = fluid_bound(world, day, truth, TARGETS["ttft"], np.ones(4)).value
    nearest_s = 0.5 + world.constants.rtt_s.min()
    assert ttft > (160 * nearest_s + 240 * world.patience_s) / 400 * 0.99


def test_expected_work_is_that_of_many_requests() -> None:
    rng = np.random.default_rng(1)
    count, constants = 200_000, SMALL.constants
    lengths = np.array([[500.0, 1500.0], [1000.0, 3000.0]])
    service = rng.integers(2, size=count)
    output = 1 + rng.poisson(constants.output_tokens[service] - 1)
    prompt = lengths[service, rng.integers(2, size=count)].astype(int)
    epoch_s = SMALL.epoch_s
    stream = requests(np.sort(rng.uniform(0, epoch_s, count)), prompt, output, 1, 0, service)
    spread = 1.0 / constants.output_tokens - 1.0 / constants.output_tokens**2  # of 1 + Poisson
    world = replace(SMALL, constants=replace(constants, output_cv2=spread))
    rate = np.zeros((1, *SMALL.class_shape))
    rate[0, 1, 0] = count / 2 / epoch_s
    available = np.ones((1, *constants.nodes.shape))
    mean = asked(world, PROFILES, expected(world, rate, lengths), available)
    drawn = asked(world, PROFILES, single(stream, epoch_s), available)
    np.testing.assert_allclose(mean.units_per_s, drawn.units_per_s, rtol=0.01)
    np.testing.assert_allclose(mean.latency_s, drawn.latency_s, rtol=0.01)
    np.testing.assert_allclose(mean.arrived, drawn.arrived)


def test_a_request_asks_for_its_tokens_and_the_context_they_read() -> None:
    stream = requests(np.array([1.0]), np.array([100]), np.array([4]))
    asks = asked(SMALL, PROFILES, single(stream, 900.0), np.ones((1, *SMALL.constants.nodes.shape)))
    # Three tokens after the first, which read 101, 102 and 103 tokens.
    units = asks.units_per_s.reshape(2, 4) * 900.0
    np.testing.assert_allclose(units, [[100.0, 100.0**2, 3.0, 306.0], [0.0] * 4])
    # The near site on H100: 0.03 s, 10 ms, 100 tokens of 20 us, 100^2 of 1 ns.
    assert asks.latency_s[0] == pytest.approx(0.03 + 0.01 + 0.002 + 1e-5)


def test_targets_are_the_schemes_and_all_pairs() -> None:
    assert list(TARGETS)[:5] == ["balanced", *ALONE]
    assert len(TARGETS) == 11
    assert all(weights.sum() == pytest.approx(1.0) for weights in TARGETS.values())
    np.testing.assert_allclose(TARGETS["carbon+cost"], [0.0, 0.5, 0.0, 0.5])


def test_values_of_targets() -> None:
    objectives, reference = np.array([1.0, 20.0, 300.0, -4.0]), np.array([2.0, 20.0, 100.0, -4.0])
    assert target_value("water", objectives, reference) == 300.0
    assert target_value("balanced", objectives, reference) == pytest.approx((0.5 + 1 + 3 - 1) / 4)


@pytest.fixture(scope="module")
def task() -> Task:
    """A run on the made-up scenario."""
    epochs = build_epochs(synthetic.scenario(), RUN, SMALL)
    return Task(RUN, SMALL, epochs, forecast_inputs(RUN, epochs, 96, 0))


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Replay of two epochs a day."""
    scoring = ScoringConfig(name="test", judge="replay", epochs=2, at_least=2)
    services = synthetic.services(SMALL, np.random.default_rng(0))
    return Judge(SMALL, PROFILES, RUN.serving.max_batch, services, scoring)


@pytest.fixture(scope="module")
def table(task: Task, judge: Judge) -> pd.DataFrame:
    """What the stage makes of the made-up scenario."""
    edges = synthetic.scenario()["prompt_tokens_quantile"].to_numpy()
    return bounds(task, PROFILES, 0.5 * (edges[:, 1:] + edges[:, :-1]), judge)


REACHED = {"mpc_perfect", "best_static", "weighted_round_robin"}


def test_the_stage_gives_every_target_under_every_judge(table: pd.DataFrame) -> None:
    assert set(table["target"]) == set(TARGETS)
    kinds = table.groupby(["judge", "target"])["kind"].agg(set)
    for target in TARGETS:
        assert kinds["fluid", target] == {"bound"} | REACHED
        assert kinds["replay", target] == {"bound"} | (REACHED if target in SCORED else set())
    assert not table.duplicated(["day", "judge", "target", "kind"]).any()
    assert np.isfinite(table["value"]).all()


def test_what_can_be_reached_is_above_the_bound_and_not_far(table: pd.DataFrame) -> None:
    fluid = table[table["judge"] == "fluid"].pivot(index="target", columns="kind", values="value")
    left = table[table["judge"] == "fluid"]["unserved_share"]
    assert (left.abs() < 1e-9).all()
    for kind in ("mpc_perfect", "best_static", "weighted_round_robin"):
        assert (fluid[kind] >= fluid["bound"]).all(), kind
    nearest = (fluid[["mpc_perfect", "best_static"]].min(axis=1) / fluid["bound"]).to_dict()
    assert max(nearest[name] for name in ("carbon", "water", "cost")) < 1.35


def test_what_can_be_reached_is_scored_by_replay_as_methods_are(
    task: Task, judge: Judge, table: pd.DataFrame
) -> None:
    scored = table[table["target"].isin(SCORED) & (table["kind"] != "bound")]
    scored = scored.set_index(["kind", "target", "judge"])
    day = run_day(task, WeightedRoundRobin(), task.test_days()[0], 7, "")
    fluid = summary(day.outcomes)
    for name, own in (("replay", judged(task, day, judge, fluid)), ("fluid", fluid)):
        for target in SCORED:
            row = scored.loc[("weighted_round_robin", target, name)]
            assert row[list(OBJECTIVES)].to_dict() == {o: own[o] for o in OBJECTIVES}
    # Replay bills what the fluid model bills, but for whole nodes and what full ones queue.
    energy = scored[list(OBJECTIVES[1:])].unstack("judge")
    for objective in OBJECTIVES[1:]:
        ratio = energy[objective, "replay"] / energy[objective, "fluid"]
        assert ratio.between(0.9, 1.2).all()
        assert (ratio != 1.0).all()


def test_methods_share_bounds() -> None:
    made = plan.load("tiny")
    assert set(made.bounds) == {cell.bounds_file for cell in made.cells} == {"fortnight"}
    assert made.bounds["fortnight"].overrides[0] == "scenario=fortnight"
    assert "scoring.epochs=2" in made.bounds["fortnight"].overrides


@pytest.mark.parametrize(
    ("change", "same"),
    [("method=nearest", True), ("budget=paper", True), ("faults=stress", False),
     ("serving.max_batch=64", False), ("physics=legacy", False), ("scoring.epochs=3", False)],
)  # fmt: skip
def test_bounds_depend_on_all_that_a_scheduler_does_not_choose(change: str, same: bool) -> None:
    before = inputs.bounds_fingerprint(compose.compose([]))
    assert (inputs.bounds_fingerprint(compose.compose([change])) == before) is same
