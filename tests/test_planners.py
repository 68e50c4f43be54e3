"""Planners: the outlook over several epochs, model-predictive control, Splitwise and DynamoLLM."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from conftest import CONF, read_section
from fleets import random_inputs, random_world
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedulers import TASK, first_observation, make_task

from marlin.errors import UserError
from marlin.evaluate import run_day
from marlin.fleet.contract import Inputs, Plan, repeat
from marlin.fleet.forecast import Forecaster
from marlin.fleet.outlook import Outlook
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.schedulers.base import Budget, Observation
from marlin.schedulers.curves import USE, at_use, curves
from marlin.schedulers.dynamollm import DynamoLlm, best_use, node_counts
from marlin.schedulers.greedy import TARGETS, Greedy, WeightedGreedy
from marlin.schedulers.mpc import Mpc
from marlin.schedulers.mpc.coefficients import even_split, make_program, mix_of
from marlin.schedulers.mpc.program import Program, solve
from marlin.schedulers.schemes import SCHEMES
from marlin.schedulers.splitwise import (
    Splitwise,
    SplitwiseAsRun,
    in_proportion,
    phase_loads,
    pools,
)  # fmt: skip
from marlin.schedulers.transport import SLACK_COST
from marlin.schedulers.ttft_greedy import TtftGreedy
from marlin.task import make_scheduler

DAY = TASK.test_days()[0]
UNITS = np.array([1.0, 1e3, 1.0, 1e3])  # of kWh times factors in the units of objectives


# The outlook.


def outlook(values: np.ndarray, noise: float = 0.0) -> Outlook:
    time = np.datetime64("2024-01-01", "h") + np.arange(len(values)) * np.timedelta64(1, "h")
    return Outlook({"a": values}, time, season=4, long_season=12, noise={"a": noise}, seed=0)


@given(st.integers(1, 39), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_an_outlook_rests_on_nothing_later(epoch: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(40, 2))
    changed = values.copy()
    changed[epoch:] = 100 * rng.normal(size=changed[epoch:].shape)
    ahead = [outlook(v).ahead(epoch, count)["a"] for v in (values, changed)]
    np.testing.assert_array_equal(ahead[0], ahead[1])
    forecaster = Forecaster(4, 12)
    for row in values[:epoch]:
        forecaster.update(row)
    np.testing.assert_array_equal(ahead[0], forecaster.predict_ahead(count))


def test_an_outlook_does_not_depend_on_what_was_asked_before() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    walked, noisy = outlook(values), [outlook(values, 0.3) for _ in range(2)]
    for epoch in (10, 11, 30, 12, 59):
        np.testing.assert_array_equal(
            walked.ahead(epoch, 3)["a"], outlook(values).ahead(epoch, 3)["a"]
        )
    noisy[0].ahead(30, 2)
    again = [o.ahead(20, 4)["a"] for o in noisy]
    np.testing.assert_array_equal(again[0], again[1])
    factor = noisy[0].ahead(20, 4)["a"] / walked.ahead(20, 4)["a"]
    np.testing.assert_allclose(factor, np.broadcast_to(factor[0], factor.shape))


def test_an_outlook_starts_afresh_after_a_gap() -> None:
    values = np.random.default_rng(0).normal(size=(40, 1))
    whole = outlook(values)
    time = whole.time.copy()
    time[25:] += np.timedelta64(99, "h")
    broken = replace(whole, time=time)
    np.testing.assert_array_equal(broken.ahead(30, 2)["a"], outlook(values[25:]).ahead(5, 2)["a"])
    assert broken.last_of_stretch(3) == 24
    assert broken.last_of_stretch(25) == 39
    with pytest.raises(ValueError, match="at least one update"):
        broken.ahead(25, 2)


def test_what_a_scheduler_sees_ahead_starts_with_the_forecast_and_is_made_when_asked_for() -> None:
    task = make_task()
    observation = task.observation(DAY, task.world.idle_state(1))
    assert "_outlook" not in vars(task)
    assert observation.outlook(1) is observation.forecast
    assert "_outlook" not in vars(task)
    ahead = observation.outlook(4)
    truth = task.truth(np.arange(DAY, DAY + 4))
    for field in fields(ahead):
        values = getattr(ahead, field.name)
        np.testing.assert_array_equal(values[:1], getattr(observation.forecast, field.name))
        assert values.shape == (4, *getattr(observation.forecast, field.name).shape[1:])
        # The made-up world repeats every day: the forecast must have noticed.
        np.testing.assert_allclose(values, getattr(truth, field.name), rtol=0.02)
    last = len(task.epochs.time) - 1
    beyond = task.observation(last, task.world.idle_state(1)).outlook(3)
    np.testing.assert_array_equal(beyond.ewif_l_per_kwh[2], task.epochs.inputs.ewif_l_per_kwh[-1])


# The program of a horizon.


def small_program(**changes: object) -> Program:
    """Two sites of ten nodes, one origin whose demand fills 0.4 of either; only energy costs."""
    one = np.ones((1, 2, 1))
    program = Program(
        load=np.full((1, 1, 2), 0.4),
        nodes=10.0 * one,
        nodes_on=10.0 * one[0],
        node_load=0.1 * one[0],
        ceiling=0.8,
        warm_ceiling=1.0,
        spill_ceiling=0.8,
        late=np.array([0.25]),
        backlog=np.zeros(2),
        share_cost=np.zeros((1, 1, 2)),
        work_cost=np.array([[[1.0], [3.0]]]),
        ready_cost=0.01 * one,
        boot_cost=0.01 * one,
        off_cost=0.0 * one,
        delay_cost=np.zeros((1, 2)),
        delay_slope=one,
        delay_offset=0.0 * one,
        cold_s=40.0,
    )
    return replace(program, **changes)


def test_the_cheap_site_serves_on_as_many_nodes_as_it_needs() -> None:
    course = solve(small_program())
    np.testing.assert_allclose(course.shares[0], [[1.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(course.nodes_on[0], [[5.0], [0.0]], atol=1e-9)  # 0.4 / 0.8 / 0.1
    assert course.cost == pytest.approx(0.4 * 1.0 + 5 * 0.01)


def test_what_does_not_fit_goes_to_the_next_site_and_the_rest_beyond_the_ceiling() -> None:
    crowded = solve(small_program(load=np.full((1, 1, 2), 1.0)))
    np.testing.assert_allclose(crowded.shares[0], [[0.8, 0.2]], atol=1e-9)
    too_much = solve(small_program(load=np.full((1, 1, 2), 2.0)))
    assert too_much.cost == pytest.approx(0.4 * SLACK_COST, rel=0.01)
    gone = solve(small_program(nodes=np.array([[[0.0], [10.0]]])))
    np.testing.assert_allclose(gone.shares[0], [[0.0, 1.0]])


def test_backlog_takes_room() -> None:
    course = solve(small_program(load=np.full((1, 1, 2), 1.0), backlog=np.array([0.5, 0.0])))
    np.testing.assert_allclose(course.shares[0], [[0.3, 0.7]], atol=1e-9)


def test_nodes_that_boot_serve_less_and_may_be_worth_less_than_warm_ones() -> None:
    cold = small_program(nodes_on=np.array([[0.0], [10.0]]))
    course = solve(cold)
    # A new node serves for three quarters of the epoch.
    np.testing.assert_allclose(course.nodes_on[0], [[5.0 / 0.75], [0.0]], atol=1e-9)
    patient = solve(replace(cold, delay_cost=np.full((1, 2), 0.04)))  # 1.6 a load that waits
    np.testing.assert_allclose(patient.shares[0], [[1.0, 0.0]], atol=1e-9)
    hasty = solve(replace(cold, delay_cost=np.full((1, 2), 0.06)))  # 2.4
    np.testing.assert_allclose(hasty.shares[0], [[0.0, 1.0]], atol=1e-9)


def test_a_horizon_wakes_nodes_before_they_are_needed() -> None:
    """Demand doubles in the second epoch, at one site; waiting costs more than idling."""
    rise = np.array([0.4, 0.8])[:, None, None] * np.array([1.0, 9.0])
    per_epoch = ("nodes", "share_cost", "work_cost", "ready_cost", "boot_cost", "off_cost")
    one = small_program(ceiling=1.0, spill_ceiling=0.0, nodes_on=np.array([[5.0], [0.0]]))
    two = {name: np.repeat(getattr(one, name), 2, axis=0) for name in per_epoch}
    ahead = solve(replace(one, **two, load=rise, delay_cost=np.ones((2, 2))))
    alone = solve(replace(one, load=rise[:1], delay_cost=np.ones((1, 2))))
    assert alone.nodes_on[0, 0, 0] == pytest.approx(4.0)
    np.testing.assert_allclose(ahead.nodes_on[:, 0, 0], 8.0)


def test_delay_spreads_load_when_it_weighs_more_than_energy() -> None:
    steep = {"delay_slope": np.array([1.0, 9.0])[:, None, None] * np.ones((2, 2, 1))}
    # Up to half of a node's use a second a load, nine beyond: ready nodes push the knee.
    steep["delay_offset"] = np.array([0.0, -0.4])[:, None, None] * np.ones((2, 2, 1))
    lean = solve(small_program(**steep))
    quick = solve(small_program(**steep, delay_cost=np.ones((1, 2))))
    assert lean.nodes_on.sum() == pytest.approx(5.0)
    assert quick.nodes_on.sum() == pytest.approx(8.0)  # 0.4 at half of the use


# What the program believes, against the simulator.


def test_curves_are_those_of_the_simulator() -> None:
    observation = first_observation(Mpc())
    world, mix = TASK.world, mix_of(observation.forecast)
    seen = curves(world, mix)
    assert (np.diff(seen.node_w, axis=-1) > 0).all()
    assert (np.diff(seen.latency_s, axis=-1) > 0).all()
    np.testing.assert_allclose(at_use(seen.node_w, USE[2]), seen.node_w[..., 2])
    np.testing.assert_allclose(
        at_use(seen.node_w, 0.4), 0.5 * (seen.node_w[..., 0] + seen.node_w[..., 1])
    )
    # A routing that leaves only nodes of the first type on, at 0.75 of their use.
    routing = np.full((1, *world.class_shape, len(world.sites)), 1 / 3)
    demand = 0.3 * observation.forecast.arrival_rate_per_s
    plan = sized_plan(world, routing, demand, 0.75)
    assert (plan.power[0, :, 1] == 0).all()
    forecast = replace(observation.forecast, arrival_rate_per_s=demand)
    state = replace(observation.state, nodes_on=plan.power * world.constants.nodes)
    _, outcome = step(world, state, plan, forecast)
    on = plan.power[0, :, 0] * world.constants.nodes[:, 0]
    off_w = (world.constants.nodes.sum(axis=1) - on) * 25.0
    it_w = outcome.site_energy_kwh[0] / forecast.pue[0] * 3.6e6 / world.epoch_s
    np.testing.assert_allclose(it_w, on * seen.node_w[:, 0, 3] + off_w, rtol=1e-3)


@pytest.mark.parametrize("variant", SCHEMES)
def test_with_a_perfect_forecast_the_simulator_confirms_the_optimum(variant: str) -> None:
    """One epoch: what the plan costs is what the program said, and no other plan costs less."""
    scheduler = Mpc(horizon=1)
    scheduler.reset(TASK.world, 0, variant)
    observation = TASK.observation(DAY, TASK.world.idle_state(1))
    plan = scheduler.plan(observation)
    world, forecast = TASK.world, observation.forecast
    seen = curves(world, mix_of(forecast))
    error = 0.01 * 1.39  # two unlike origins
    ceiling = 1 / (1 + 2 * error)
    even = even_split(world, forecast, seen, ceiling) / UNITS
    weights = np.maximum(np.array(SCHEMES[variant]), 1e-3)
    program = make_program(world, observation.state, forecast, seen, weights, ceiling, error)
    _, outcome = step(world, observation.state, plan, forecast)
    cost = (np.stack(outcome.objectives(), axis=-1) / even) @ weights
    assert cost[0] == pytest.approx(solve(program).cost, rel=0.08)
    rng = np.random.default_rng(0)
    for concentration in (0.1, 1.0, 10.0):
        shares = rng.dirichlet(np.full(3, concentration), (200, *world.class_shape))
        demand = np.repeat(forecast.arrival_rate_per_s, 200, axis=0)
        target = rng.uniform(0.3, ceiling, (200, 1))
        others = sized_plan(world, shares, demand, target)
        batch = [np.repeat(getattr(forecast, f.name), 200, axis=0) for f in fields(forecast)]
        _, outcome = step(world, world.idle_state(200), others, type(forecast)(*batch))
        served = outcome.waiting + outcome.dropped == 0.0
        values = (np.stack(outcome.objectives(), axis=-1) / even) @ weights
        assert cost[0] <= values[served].min() * 1.01


def test_every_variant_is_the_best_of_all_by_its_own_objective() -> None:
    totals = []
    for variant in SCHEMES:
        day = run_day(TASK, Mpc(), DAY, 0, variant)
        totals.append(np.sum([np.stack(o.objectives())[:, 0] for o in day.outcomes], axis=0))
        assert sum(o.dropped[0] for o in day.outcomes) == 0.0
    np.testing.assert_array_equal(np.argmin(totals, axis=0), [1, 2, 3, 4])


@given(st.integers(0, 2**31), st.floats(0.05, 1.5), st.floats(0.0, 0.6))
@settings(max_examples=25, deadline=None)
def test_plans_keep_the_contract_on_any_fleet(seed: int, load: float, outage: float) -> None:
    rng = np.random.default_rng(seed)
    world = random_world(rng, *(int(n) for n in rng.integers(1, 5, 5)))
    forecast = random_inputs(rng, world, 3, load, outage)
    nodes = world.constants.nodes
    nodes[rng.random(nodes.shape) < 0.2] = 0.0  # a site may lack a node type, or all
    nodes[0, 0] = 5.0
    scheduler = Mpc(horizon=3)
    scheduler.reset(world, 0, "")
    observation = replace(
        TASK.observation(DAY, world.idle_state(1)),
        world=world,
        forecast=type(forecast)(*(getattr(forecast, f.name)[:1] for f in fields(forecast))),
        ahead=lambda count: forecast,
    )
    plan = scheduler.plan(observation)
    np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
    assert isinstance(plan, Plan)
    assert (plan.routing >= 0).all()
    assert ((plan.power >= 0) & (plan.power <= 1)).all()


def test_room_follows_the_error_of_the_forecast() -> None:
    scheduler = Mpc()
    observation = first_observation(scheduler)
    calm = scheduler.plan(observation).power.sum()
    _, outcome = step(TASK.world, observation.state, Plan(
        np.full((1, *TASK.world.class_shape, 3), 1 / 3), np.ones((1, 3, 2))
    ), observation.forecast)  # fmt: skip
    for _ in range(20):
        scheduler.observe(replace(outcome, arrived=1.3 * outcome.arrived))
    assert scheduler.plan(observation).power.sum() > 1.3 * calm
    for _ in range(200):
        scheduler.observe(outcome)
    assert scheduler.plan(observation).power.sum() == pytest.approx(calm)


# Splitwise.


def test_levels_in_proportion_by_hand() -> None:
    part = np.array([[0.6, 0.4]])
    half = in_proportion(np.array([[1.0, 1.0]]), part, np.array([0.5]))
    np.testing.assert_allclose(half, [[0.5, 0.5]])
    # 2 to 1 would take the first pool to 1.125: it is full, the second takes what is left.
    over = in_proportion(np.array([[2.0, 1.0]]), part, np.array([0.9]))
    np.testing.assert_allclose(over, [[1.0, 0.75]])
    np.testing.assert_allclose(in_proportion(np.array([[2.0, 0.0]]), part, np.array([9.0])), 1.0)
    none = in_proportion(np.array([[2.0, 1.0]]), part, np.array([0.0]))
    np.testing.assert_allclose(none, [[0.0, 0.0]])


def test_pools_follow_what_node_types_are_better_at() -> None:
    world, demand = TASK.world, np.ones((2, 2))
    nodes = world.constants.nodes
    quick = replace(
        world.constants,
        prefill_s=np.array([0.1, 0.01])[:, None, None] * np.ones((2, 2, 2)),
        work_s=np.array([0.2, 0.11])[:, None, None] * np.ones((2, 2, 2)),
    )
    members = pools(replace(world, constants=quick), nodes, demand)
    # Both take 0.1 s for outputs; the second type is faster at prompts.
    np.testing.assert_array_equal(members[:, 0], [[0, 1], [1, 0]])
    lone = nodes.copy()
    lone[1, 1] = 0.0
    mixed = pools(replace(world, constants=quick), lone, demand)
    np.testing.assert_array_equal(mixed[:, 1] * lone[1], [[6, 0], [6, 0]])


def test_phases_of_a_mixed_pool_add_up_to_the_load_of_the_site() -> None:
    world, demand = TASK.world, TASK.forecasts(np.array([DAY])).arrival_rate_per_s
    nodes = world.constants.nodes * np.array([1.0, 0.0])
    both = phase_loads(world, nodes, np.ones((2, 3, 2)), demand[0].sum(axis=0))
    rate = np.einsum("dg,gms->dms", nodes, world.constants.node_rate_per_s)
    np.testing.assert_allclose(
        both.sum(axis=0), (demand[0].sum(axis=0) / rate).sum(axis=(1, 2)), rtol=1e-9
    )


def test_splitwise_levels_queues_and_leaves_the_room_that_it_says() -> None:
    scheduler = Splitwise(target_utilisation=0.7)
    observation = first_observation(scheduler)
    plan = scheduler.plan(observation)
    np.testing.assert_allclose(plan.routing, 1 / 3)
    warm = replace(observation.state, nodes_on=plan.power * TASK.world.constants.nodes)
    _, outcome = step(TASK.world, warm, plan, observation.forecast)
    np.testing.assert_allclose(outcome.site_utilisation, 0.7, rtol=0.02)
    backlog = observation.state.backlog.copy()
    backlog[0, 0] = 500.0
    crowded = replace(observation, state=replace(observation.state, backlog=backlog))
    pushed = scheduler.plan(crowded)
    assert pushed.routing[..., 0].max() < 1 / 3
    np.testing.assert_allclose(pushed.routing[..., 1], pushed.routing[..., 2])


def test_splitwise_as_run_sends_whole_buckets_by_pending_tokens() -> None:
    scheduler = SplitwiseAsRun()
    observation = first_observation(scheduler)
    waiting = observation.state.backlog.copy()
    waiting[0, 1] = 1e6  # more than an epoch brings: nothing more goes there
    plan = scheduler.plan(replace(observation, state=replace(observation.state, backlog=waiting)))
    assert plan.routing.sum(axis=(0, 1, 2, 3))[1] == 0.0
    scores = TASK.world.constants.prompt_tokens / 4000 + 1.5 * (
        TASK.world.constants.output_tokens / 8000
    )
    sizes = (observation.forecast.arrival_rate_per_s[0] @ scores).ravel()
    sent, expected = np.zeros(3), []
    for size in sizes:
        expected.append(int(np.argmin(sent)))
        sent[expected[-1]] += size
    plan = scheduler.plan(observation)
    chosen = plan.routing[0, :, :, 0].reshape(-1, 3)
    np.testing.assert_array_equal(chosen.argmax(axis=1), expected)


# DynamoLLM.


def test_classes_take_the_nodes_that_serve_them_with_least_energy() -> None:
    # One class of 10 a second: the first type serves 2 a node for 5 J, the second 1 for 8 J.
    counts = node_counts(
        np.array([10.0]), np.array([[2.0, 1.0]]), np.array([[5.0, 8.0]]), np.array([3.0, 9.0])
    )
    np.testing.assert_array_equal(counts, [3, 4])
    # Two classes want half a node each: the fragments share one.
    shared = node_counts(
        np.array([1.0, 1.0]), np.full((2, 1), 2.0), np.ones((2, 1)), np.array([9.0])
    )
    np.testing.assert_array_equal(shared, [1])
    # The class that loses least moves to the second type when the first is short.
    moved = node_counts(
        np.array([1.0, 1.0]), np.ones((2, 2)), np.array([[1.0, 9.0], [1.0, 2.0]]), np.ones(2)
    )
    np.testing.assert_array_equal(moved, [1, 1])


def test_tight_limits_leave_nodes_emptier_and_cost_energy() -> None:
    tight, loose = (best_use(TASK.world, np.full(2, limit)) for limit in (0.05, 99.0))
    assert (tight[1] <= loose[1]).all()
    assert (tight[1] < loose[1]).any()
    assert (tight[0] >= loose[0]).all()
    np.testing.assert_allclose(loose[1], USE[-1] * TASK.world.constants.node_rate_per_s)


def test_node_counts_stand_for_half_an_hour_and_hold_the_peak() -> None:
    scheduler = DynamoLlm()
    task = make_task()
    scheduler.reset(task.world, 0)
    state = task.world.idle_state(1)
    plans = [scheduler.plan(task.observation(DAY + i, state)) for i in range(15)]
    for first, second in zip(plans[0:14:2], plans[1:14:2], strict=True):
        np.testing.assert_array_equal(first.power, second.power)
    # Demand of the made-up day rises until noon.
    assert plans[14].power.sum() > plans[0].power.sum()
    # An outage is no time to wait.
    now = task.observation(DAY + 15, state)
    gone = np.array([[[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]])
    moved = scheduler.plan(replace(now, forecast=replace(now.forecast, available=gone)))
    assert moved.power[0, 0].sum() == 0.0
    assert moved.power[0, 1:].sum() > plans[14].power[0, 1:].sum()
    np.testing.assert_allclose(moved.routing[..., 0], 0.0, atol=1e-9)
    whole = plans[0].power * task.world.constants.nodes
    np.testing.assert_allclose(whole, np.round(whole))
    warm = replace(state, nodes_on=whole)
    _, outcome = step(task.world, warm, plans[1], task.truth(np.array([DAY + 1])))
    assert outcome.site_utilisation.max() < 1.0


# Greedy schedulers and the optimum on paper.


def two_sites(demand_load: float) -> Observation:
    """One origin, one model and service, two equal sites; each objective has its best site.

    The first is near, the second far; carbon is least at the second, water at the first, energy
    cost at the second. `demand_load` is the share of one whole site that demand fills.
    """
    world = random_world(np.random.default_rng(1), 2, 1, 1, 1, 1)
    constants = replace(
        world.constants, nodes=np.full((2, 1), 20.0), rtt_s=np.array([[0.01, 0.2]]),
        arrival_cv2=np.ones(1),
    )  # fmt: skip
    world = replace(world, constants=constants)
    rate = demand_load * 20.0 * constants.node_rate_per_s[0]
    one = np.ones((1, 2))
    forecast = Inputs(
        arrival_rate_per_s=rate[None, None],
        carbon_g_per_kwh=np.array([[400.0, 100.0]]),
        price_usd_per_mwh=np.array([[90.0, 30.0]]),
        pue=1.2 * one,
        wue_l_per_kwh=np.array([[0.1, 2.0]]),
        ewif_l_per_kwh=one,
        aware_m3_per_m3=one,
        available=np.ones((1, 2, 1)),
    )
    return replace(
        TASK.observation(DAY, world.idle_state(1)),
        world=world,
        forecast=forecast,
        ahead=lambda count: repeat(forecast, count),
        budget=Budget(64),
    )


BEST_SITE = {"ttft": 0, "carbon": 1, "water": 0, "cost": 1}
GREEDY = {
    "ttft": TtftGreedy(),
    "carbon": Greedy(name="c", objective="carbon"),
    "water": Greedy(name="w", objective="water"),
    "cost": Greedy(name="u", objective="cost"),
}


@pytest.mark.parametrize("objective", BEST_SITE)
def test_every_greedy_scheduler_finds_the_optimum_on_paper(objective: str) -> None:
    """Half a site's demand goes whole to the best site; more than a site's fills it first."""
    best = BEST_SITE[objective]
    for scheduler in (GREEDY[objective], WeightedGreedy(), Mpc(horizon=1)):
        light = two_sites(0.5)
        scheduler.reset(light.world, 0, "" if scheduler is GREEDY[objective] else objective)
        plan = scheduler.plan(light)
        np.testing.assert_allclose(plan.routing[..., best], 1.0, atol=1e-6)
        if objective == "ttft":
            continue  # how full the near site may get is a matter of queueing, not of paper
        heavy = two_sites(1.2)
        plan = scheduler.plan(heavy)
        share = plan.routing[0, 0, 0, 0, best]
        room = 0.85 if not isinstance(scheduler, Mpc) else 1 / 1.02
        assert share == pytest.approx(room / 1.2, rel=1e-6)


def test_power_is_that_of_the_fullest_nodes_that_leave_nobody_waiting() -> None:
    scheduler = GREEDY["carbon"]
    warm = two_sites(0.5)
    assert scheduler.plan(warm).power[0, 1, 0] == pytest.approx(0.5 / 0.95)
    on = np.array([[[20.0], [0.0]]])
    cold = replace(warm, state=replace(warm.state, nodes_on=on, loaded=on[..., None]))
    late = warm.world.constants.cold_s[0] / 900.0
    level = scheduler.plan(replace(cold, budget=Budget(64))).power[0, 1, 0]
    assert level * (1 - late) >= 0.5  # new nodes serve from when they have booted
    assert level == pytest.approx(0.5 / max(t for t in TARGETS if t <= 1 - late))


def test_weighted_greedy_has_a_variant_for_every_scheme() -> None:
    plain = WeightedGreedy(ttft_weight=0.0, carbon_weight=1.0, water_weight=0.0, cost_weight=0.0)
    balanced = WeightedGreedy()
    assert balanced.variants() == tuple(SCHEMES)
    observation = first_observation(plain)
    own = plain.plan(observation)
    balanced.reset(TASK.world, 0, "carbon")
    again = balanced.plan(replace(observation, budget=Budget(64)))
    np.testing.assert_array_equal(own.routing, again.routing)
    np.testing.assert_array_equal(own.power, again.power)
    balanced.reset(TASK.world, 0, "")
    mixed = balanced.plan(replace(observation, budget=Budget(64)))
    assert not np.array_equal(mixed.routing, own.routing)


def test_every_simulated_plan_is_counted() -> None:
    observation = two_sites(0.5)
    plan = WeightedGreedy()
    plan.reset(observation.world, 0)
    plan.plan(observation)
    assert observation.budget.used == len(TARGETS)
    assert observation.budget.left == 64 - len(TARGETS)
    with pytest.raises(UserError, match=rf"asked for {2 * len(TARGETS)} simulated plans .* is 10"):
        plan.plan(replace(observation, budget=Budget(10, used=len(TARGETS))))


# Their pages.

PAGES = {
    "carbon_greedy": "greedy", "water_greedy": "greedy", "cost_greedy": "greedy",
    "weighted_greedy": "greedy", "casper": "casper", "dynamollm": "dynamollm", "helix": "helix",
    "helix_as_run": "helix", "jsq": "jsq", "mpc": "mpc", "nearest": "nearest",
    "perllm": "perllm", "perllm_as_run": "perllm", "round_robin": "round_robin",
    "splitwise": "splitwise", "splitwise_as_run": "splitwise", "ttft_greedy": "ttft_greedy",
    "waterwise": "waterwise", "weighted_round_robin": "weighted_round_robin",
}  # fmt: skip


@pytest.mark.parametrize("method", PAGES)
def test_a_page_has_every_parameter_of_the_scheduler_and_its_picture(method: str) -> None:
    page = CONF.parent / "docs" / "schedulers" / f"{PAGES[method]}.md"
    text = page.read_text(encoding="utf-8")
    assert f"(../images/schedulers/{method}.png)" in text
    run = TASK.run.model_copy(update={"method": read_section("method", method)})
    scheduler = make_scheduler(run)
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert is_dataclass(scheduler)
    for field in fields(scheduler):
        if field.name != "name":
            assert f"`{field.name}`" in table, field.name
