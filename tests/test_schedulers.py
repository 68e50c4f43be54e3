"""Every scheduler keeps the contract; greedy ones do what their name says."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import synthetic

from marlin.errors import UserError
from marlin.evaluate import evaluate, run_day
from marlin.fleet.contract import OBJECTIVES, Plan
from marlin.fleet.simulator import step
from marlin.fleet.world import TEST, TRAIN, VALIDATION, build_epochs, build_world
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.casper import Casper
from marlin.schedulers.dynamollm import DynamoLlm
from marlin.schedulers.fill import fill_by_cost
from marlin.schedulers.greedy import Greedy, WeightedGreedy
from marlin.schedulers.helix import Helix, HelixAsRun
from marlin.schedulers.jsq import Jsq
from marlin.schedulers.mpc import Mpc
from marlin.schedulers.nearest import Nearest
from marlin.schedulers.nsga2 import Nsga2, Nsga2AsRun
from marlin.schedulers.nsga3 import Nsga3
from marlin.schedulers.perllm import PerLlm, PerLlmAsRun
from marlin.schedulers.round_robin import RoundRobin
from marlin.schedulers.slit import Slit
from marlin.schedulers.splitwise import Splitwise, SplitwiseAsRun
from marlin.schedulers.ttft_greedy import TtftGreedy
from marlin.schedulers.waterwise import WaterWise
from marlin.schedulers.weighted_round_robin import WeightedRoundRobin
from marlin.task import Task, forecast_inputs


def carbon_greedy() -> Greedy:
    return Greedy(name="carbon_greedy", objective="carbon")


SIMPLE = [
    RoundRobin, WeightedRoundRobin, Jsq, Nearest, carbon_greedy, TtftGreedy, WeightedGreedy,
    WaterWise, Casper, PerLlm, PerLlmAsRun, Helix, HelixAsRun, Splitwise, SplitwiseAsRun,
    DynamoLlm, Mpc, Nsga2, Nsga2AsRun, Nsga3, Slit,
]  # fmt: skip


def make_task(**changes: object) -> Task:
    run = synthetic.run_config(**changes)
    dataset = synthetic.scenario()
    world = build_world(dataset, run, synthetic.profiles())
    epochs = build_epochs(dataset, run, world)
    return Task(run, world, epochs, forecast_inputs(run, epochs, world.epochs_per_day, 0))


TASK = make_task()


def first_observation(scheduler: Scheduler, task: Task = TASK) -> Observation:
    scheduler.reset(task.world, 0)
    return task.observation(task.test_days()[0], task.world.idle_state(1))


@pytest.mark.parametrize("kind", SIMPLE)
def test_plans_are_shares_and_levels(kind: Callable[[], Scheduler]) -> None:
    scheduler = kind()
    plan = scheduler.plan(first_observation(scheduler))
    world = TASK.world
    assert plan.routing.shape == (1, *world.class_shape, len(world.sites))
    assert plan.power.shape == (1, len(world.sites), len(world.node_types))
    np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
    assert (plan.routing >= 0).all()
    assert ((plan.power >= 0) & (plan.power <= 1)).all()


@pytest.mark.parametrize("kind", SIMPLE)
def test_a_scheduler_sees_nothing_of_the_epoch_that_it_plans(kind: Callable[[], Scheduler]) -> None:
    """Changing the truth from an epoch on leaves the plan for that epoch as it was."""
    start = TASK.test_days()[0]
    later = {
        f.name: np.where(
            (np.arange(len(TASK.epochs.time)) >= start).reshape(-1, *[1] * (value.ndim - 1)),
            value * 1.7,
            value,
        )
        for f in fields(TASK.epochs.inputs)
        if f.name not in ("available", "ewif_l_per_kwh", "aware_m3_per_m3")
        for value in [getattr(TASK.epochs.inputs, f.name)]
    }
    epochs = replace(TASK.epochs, inputs=replace(TASK.epochs.inputs, **later))
    other = Task(
        TASK.run,
        TASK.world,
        epochs,
        forecast_inputs(TASK.run, epochs, TASK.world.epochs_per_day, 0),
    )
    plans = []
    for task in (TASK, other):
        scheduler = kind()
        plans.append(scheduler.plan(first_observation(scheduler, task)))
    np.testing.assert_array_equal(plans[0].routing, plans[1].routing)
    np.testing.assert_array_equal(plans[0].power, plans[1].power)


@pytest.mark.parametrize("kind", [kind for kind in SIMPLE if not kind().chance])
def test_without_chance_every_seed_gives_the_same_morning(kind: Callable[[], Scheduler]) -> None:
    start, plans = TASK.test_days()[0], []
    for seed in (0, 1):
        scheduler, state = kind(), TASK.world.idle_state(1)
        scheduler.reset(TASK.world, seed)
        for epoch in range(start, start + 4):
            plan = scheduler.plan(TASK.observation(epoch, state))
            state, outcome = step(TASK.world, state, plan, TASK.truth(np.array([epoch])))
            scheduler.observe(outcome)
        plans.append(plan)
    np.testing.assert_array_equal(plans[0].routing, plans[1].routing)
    np.testing.assert_array_equal(plans[0].power, plans[1].power)


def test_without_injected_noise_forecasts_take_no_chance() -> None:
    forecasts = [forecast_inputs(TASK.run, TASK.epochs, 96, seed) for seed in (0, 1)]
    for field in fields(forecasts[0]):
        np.testing.assert_array_equal(*(getattr(one, field.name) for one in forecasts))


def test_round_robin_splits_evenly() -> None:
    scheduler = RoundRobin()
    plan = scheduler.plan(first_observation(scheduler))
    np.testing.assert_allclose(plan.routing, 1 / 3)


def test_carbon_greedy_fills_the_cleanest_site_first() -> None:
    scheduler = carbon_greedy()
    observation = first_observation(scheduler)
    routed = site_requests(observation, scheduler.plan(observation))
    carbon = (observation.forecast.pue * observation.forecast.carbon_g_per_kwh)[0]
    assert routed.argmax() == carbon.argmin()
    assert routed[carbon.argmax()] == routed.min()


def test_nearest_sends_light_demand_to_the_closest_site() -> None:
    scheduler = Nearest()
    observation = first_observation(scheduler)
    light = replace(
        observation.forecast,
        arrival_rate_per_s=0.05 * observation.forecast.arrival_rate_per_s,
    )
    plan = scheduler.plan(replace(observation, forecast=light))
    closest = TASK.world.constants.rtt_s.argmin(axis=1)
    for origin, site in enumerate(closest):
        np.testing.assert_allclose(plan.routing[0, origin, :, :, site], 1.0)


def test_fill_respects_the_ceiling_and_spreads_what_is_left_by_capacity() -> None:
    world = TASK.world
    demand = TASK.truth(np.array([TASK.test_days()[0]])).arrival_rate_per_s
    cost = np.broadcast_to(np.array([0.0, 1.0, 2.0]), (2, 3))
    capacity = np.einsum("dg,gms->dms", world.constants.nodes, world.constants.node_rate_per_s)

    def site_load(routing: np.ndarray) -> np.ndarray:
        routed = np.einsum("oms,omsd->dms", demand[0], routing[0])
        return (routed / capacity).sum(axis=(1, 2))

    load = site_load(fill_by_cost(world, cost, demand, 0.7))
    assert load[0] == pytest.approx(0.7)
    assert load.argsort().tolist() == [2, 1, 0]
    crowded = site_load(fill_by_cost(world, cost, demand, 0.1))
    # Equal sites: each holds 0.1 and a third of what finds no room.
    np.testing.assert_allclose(crowded, site_load(np.full_like(_even(demand), 1 / 3)))


def test_nsga2_is_better_than_its_starting_point_and_repeats() -> None:
    plans = []
    for _ in range(2):
        scheduler = Nsga2()
        observation = first_observation(scheduler)
        plans.append(scheduler.plan(observation))
        assert observation.budget.used <= TASK.run.budget.calls_per_decision
    np.testing.assert_array_equal(plans[0].routing, plans[1].routing)
    rich = make_task(
        budget={
            "name": "x",
            "training_epochs": 0,
            "worlds": 1,
            "checkpoints": 1,
            "calls_per_decision": 640,
        }
    )

    def score(task: Task) -> float:
        scheduler = Nsga2()
        observation = first_observation(scheduler, task)
        plan = scheduler.plan(observation)
        outcome = replace(observation, budget=task.observation(800, observation.state).budget)
        return float(sum(np.log(v[0]) for v in outcome.simulate(plan)[1].objectives()))

    assert score(rich) < score(TASK)


def test_budget_refuses_more_than_it_holds() -> None:
    scheduler = RoundRobin()
    observation = first_observation(scheduler)
    plan = scheduler.plan(observation)
    many = Plan(np.repeat(plan.routing, 33, axis=0), np.repeat(plan.power, 33, axis=0))
    with pytest.raises(UserError, match=r"33 simulated plans .* is 32"):
        observation.simulate(many)


def test_days_are_whole_disjoint_and_have_history() -> None:
    train, validation, test = (set(TASK.days(s)) for s in (TRAIN, VALIDATION, TEST))
    assert not train & validation
    assert not (train | validation) & test
    assert min(train) == 7 * 96
    assert len(validation) == 1
    assert len(test) == 2
    with pytest.raises(UserError, match=r"has 2 test days but scenario\.test_days is 9"):
        make_task(
            scenario=synthetic.run_config().scenario.model_dump() | {"test_days": 9}
        ).test_days()


def test_episode_totals_are_sums_of_epochs_and_repeat_exactly() -> None:
    run = TASK.run.model_copy(update={"method": {"name": "nsga2"}})
    task = Task(run, TASK.world, TASK.epochs, TASK.forecast)
    episodes, epochs, timings = evaluate(task, Nsga2(), 3)
    variants = ["nsga2", "nsga2_ttft", "nsga2_carbon", "nsga2_water", "nsga2_cost"]
    assert episodes["method"].tolist() == variants
    assert len(epochs) == 5 * 96 * 3
    assert len(timings) == 5 * 96
    for name in OBJECTIVES[1:]:
        totals = epochs.groupby("method")[name].sum()
        assert episodes[name].to_numpy() == pytest.approx(totals[variants].to_numpy())
    again = evaluate(task, Nsga2(), 3)[0]
    assert again.equals(episodes)


def test_a_scheduler_of_the_users_own_needs_only_plan() -> None:
    class Mine(Scheduler):
        def plan(self, observation: Observation) -> Plan:
            sites = len(observation.world.sites)
            shape = (1, *observation.world.class_shape, sites)
            power = np.ones((1, sites, len(observation.world.node_types)))
            return Plan(np.full(shape, 1 / sites), power)

    day = run_day(TASK, Mine(), TASK.test_days()[0], 0, "")
    assert len(day.outcomes) == 96


def test_the_scheduler_in_the_docs_works_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[1] / "docs" / "schedulers" / "README.md"
    code = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    (tmp_path / "my_scheduler.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    scheduler = importlib.import_module("my_scheduler").Cheapest()
    observation = first_observation(scheduler)
    routed = site_requests(observation, scheduler.plan(observation))
    assert routed.argmax() == observation.forecast.price_usd_per_mwh[0].argmin()


def site_requests(observation: Observation, plan: Plan) -> np.ndarray:
    demand = observation.forecast.arrival_rate_per_s[..., None]
    return (demand * plan.routing).sum(axis=(0, 1, 2, 3))


def _even(demand: np.ndarray) -> np.ndarray:
    return np.empty((*demand.shape, len(synthetic.SITES)))
