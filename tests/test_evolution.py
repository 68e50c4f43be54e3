"""Searches over plans: their encoding, what they find, and how methods are tuned."""

from __future__ import annotations

from dataclasses import replace

import moocore
import numpy as np
import pandas as pd
import pytest
from fleets import random_inputs, random_world
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedulers import TASK, first_observation, site_requests

from marlin import compose, tune
from marlin.errors import UserError
from marlin.evaluate import run_day
from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import VALIDATION
from marlin.schedulers import encoding
from marlin.schedulers.base import Budget, Observation
from marlin.schedulers.fill import fill_by_cost
from marlin.schedulers.nsga2 import Nsga2, Nsga2AsRun
from marlin.schedulers.nsga3 import Nsga3
from marlin.schedulers.plan_search import PlanSearch, Trials, objectives
from marlin.schedulers.slit import Held, Slit, features, fitted, spread_vectors

SEARCHES = [Nsga2, Nsga2AsRun, Nsga3, Slit]


def observation(calls: int = 64) -> Observation:
    """Ten in the morning of the first test day, every node on."""
    seen = TASK.observation(TASK.test_days()[0] + 40, TASK.world.idle_state(1))
    return replace(seen, budget=Budget(calls))


def searched(kind: type[PlanSearch], calls: int, seed: int = 0, variant: str = "") -> Trials:
    """All plans that a search tries in its first epoch."""
    scheduler = kind()
    scheduler.reset(TASK.world, seed, variant)
    trials = Trials(observation(calls), scheduler.decode)
    scheduler.search(trials, scheduler.start(trials.observation))
    return trials


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_all_genes_are_plans(seed: int, sites: int) -> None:
    rng = np.random.default_rng(seed)
    world = random_world(rng, sites, 2, 2, 2, 3)
    forecast = random_inputs(rng, world, 1)
    seen = Observation(
        world,
        np.datetime64("2024-01-01"),
        forecast,
        world.idle_state(1),
        Budget(9),
        ahead=lambda count: forecast,
    )
    genes = rng.integers(0, 2, (4, encoding.gene_count(world))) * rng.random((4, 1))
    plan = encoding.decode(seen, genes)
    assert plan.routing.shape == (4, *world.class_shape, sites)
    np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
    assert plan.routing.min() >= 0.0
    assert plan.power.min() >= 0.0
    assert plan.power.max() <= 1.0 + 1e-12


@given(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3))
def test_shares_come_back_from_their_genes(sizes: list[float]) -> None:
    shares = np.array([sizes]) / sum(sizes)
    genes = encoding.encode(TASK.world, shares, np.zeros(1), np.full(1, 0.5))
    assert genes.min() >= 0.0
    assert genes.max() <= 1.0
    # Demand so light that no site overflows.
    forecast = observation().forecast
    light = replace(forecast, arrival_rate_per_s=1e-3 * forecast.arrival_rate_per_s)
    plan = encoding.decode(replace(observation(), forecast=light), genes)
    np.testing.assert_allclose(plan.routing[0, 0, 0, 0], shares[0], rtol=1e-9)


def test_the_start_set_holds_the_greedy_plans() -> None:
    seen = observation()
    genes = encoding.greedy_plans(seen)
    assert genes.shape == (11, encoding.gene_count(TASK.world))
    carbon = (seen.forecast.pue * seen.forecast.carbon_g_per_kwh)[0]
    demand = seen.forecast.arrival_rate_per_s
    cost = np.broadcast_to(carbon, TASK.world.constants.rtt_s.shape)
    greedy = fill_by_cost(TASK.world, cost, demand, encoding.KNOWN_CEILING)
    plan = encoding.decode(seen, genes[1:2])
    expected = (demand[..., None] * greedy).sum(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(site_requests(seen, plan), expected, atol=1e-4 * demand.sum())


def test_an_extreme_plan_is_everything_at_one_site() -> None:
    seen = observation()
    demand = 1e-3 * seen.forecast.arrival_rate_per_s  # so light that no site overflows
    light = replace(seen, forecast=replace(seen.forecast, arrival_rate_per_s=demand))
    plan = encoding.decode(light, encoding.single_sites(TASK.world))
    np.testing.assert_allclose(plan.routing[:, 0, 0, 0], np.eye(3), atol=1e-4)


def enumerated() -> np.ndarray:
    """Genes of a grid of plans: shares in tenths, five weights of distance, fifteen targets."""
    tenths = np.array([(a, b, 10 - a - b) for a in range(11) for b in range(11 - a)]) / 10
    near, targets = np.array([0.0, 0.1, 0.25, 0.5, 1.0]), np.linspace(0.15, 0.85, 15)
    axes = np.meshgrid(np.arange(len(tenths)), near, targets, indexing="ij")
    rows, near, targets = (axis.ravel() for axis in axes)
    return encoding.encode(TASK.world, tenths[rows.astype(int)], near, targets)


@pytest.mark.parametrize("kind", [Nsga2, Nsga3, Slit])
def test_searches_find_the_front_of_a_small_fleet(kind: type[PlanSearch]) -> None:
    """At 768 calls they reach 95 % of the hypervolume of 4,950 enumerated plans."""
    everything = Trials(observation(10**4), encoding.decode)
    size = np.abs(everything(encoding.even_split(TASK.world))[0])
    reference = size * np.array([2.0, 1.5, 1.5, 1.5])
    front = moocore.hypervolume(everything(enumerated()), ref=reference)
    for seed in range(3):
        tried = np.concatenate(searched(kind, 768, seed).costs)
        assert moocore.hypervolume(tried, ref=reference) > 0.95 * front


@pytest.mark.parametrize("kind", SEARCHES)
def test_searches_stay_within_the_budget_and_repeat(kind: type[PlanSearch]) -> None:
    for calls in (32, 64, 70):
        first, second = searched(kind, calls), searched(kind, calls)
        used = first.observation.budget.used
        assert calls - 20 < used <= calls
        np.testing.assert_array_equal(np.concatenate(first.genes), np.concatenate(second.genes))


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize(("variant", "objective"), [("ttft", 0), ("carbon", 1), ("cost", 3)])
def test_a_variant_carries_out_the_trial_with_the_least_of_its_objective(
    kind: type[PlanSearch], variant: str, objective: int
) -> None:
    scheduler = kind()
    scheduler.reset(TASK.world, 0, variant)
    plan = scheduler.plan(observation())
    _, outcome = observation().simulate(plan)
    tried = np.concatenate(searched(kind, 64, 0, variant).costs)
    assert objectives(outcome)[0, objective] == pytest.approx(tried[:, objective].min())


def test_what_is_not_served_makes_the_rest_dearer() -> None:
    seen = observation()
    _, outcome = seen.simulate(encoding.decode(seen, encoding.even_split(TASK.world)))
    served = replace(outcome, dropped=0.0 * outcome.arrived, waiting=0.0 * outcome.arrived)
    half = replace(served, dropped=0.3 * outcome.arrived, waiting=0.2 * outcome.arrived)
    costs, dearer = objectives(served), objectives(half)
    np.testing.assert_allclose(dearer[:, 1:], 2.0 * costs[:, 1:])
    assert dearer[0, 0] == costs[0, 0]


@pytest.mark.parametrize("kind", [Nsga2, Nsga3, Slit])
def test_the_plan_carried_out_is_among_the_next_start(kind: type[PlanSearch]) -> None:
    scheduler = kind()
    plan = scheduler.plan(first_observation(scheduler))
    known = 12  # the even split and the greedy plans
    again = encoding.decode(observation(), scheduler.start(observation())[known : known + 1])
    first = TASK.observation(TASK.test_days()[0], TASK.world.idle_state(1))
    kept = encoding.decode(first, scheduler.start(first)[known : known + 1])
    np.testing.assert_array_equal(kept.routing, plan.routing)
    np.testing.assert_array_equal(kept.power, plan.power)
    assert not np.array_equal(again.power, plan.power)  # sized for another forecast


def test_as_run_keeps_every_node_on_and_ends_after_eight_generations() -> None:
    scheduler = Nsga2AsRun()
    assert (scheduler.plan(first_observation(scheduler)).power == 1.0).all()
    assert searched(Nsga2AsRun, 64).observation.budget.used == 64
    assert searched(Nsga2AsRun, 1000).observation.budget.used == 128
    nothing = scheduler.decode(observation(), np.zeros((1, 12)))
    np.testing.assert_allclose(nothing.routing, 1 / 3)


def test_more_directions_than_plans_are_refused() -> None:
    with pytest.raises(UserError, match="population=20 is less than the 35 directions"):
        compose.compose(["method=nsga3", "method.partitions=4"])


def test_weight_vectors_are_tenths_spread_from_the_scheme_on() -> None:
    balanced = np.full(4, 0.25)
    vectors = spread_vectors(balanced, 20)
    np.testing.assert_array_equal(vectors[0], balanced)
    assert {tuple(row) for row in vectors[1:5]} == {tuple(row) for row in np.eye(4)}
    np.testing.assert_allclose(vectors.sum(axis=1), 1.0)
    np.testing.assert_allclose(10 * vectors[1:], np.round(10 * vectors[1:]), atol=1e-12)
    assert len({tuple(row) for row in vectors}) == 20


def test_a_plan_is_held_for_the_vectors_that_it_is_better_for() -> None:
    held = Held(np.zeros((2, 1)), np.ones((2, 4)), np.array([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]]))
    cost = np.array([0.8, 1.2, 1.1, 0.0])
    gains = held.gains(np.array([0, 1]), cost)
    np.testing.assert_allclose(gains, [0.2, -0.15])
    held.put(np.array([0, 1])[gains > 0.0], np.array([0.7]), cost)
    np.testing.assert_array_equal(held.genes, [[0.7], [0.0]])
    np.testing.assert_array_equal(held.costs[1], 1.0)


def test_the_model_learns_which_searches_gain() -> None:
    """On made-up searches around a plan that gain what its first gene lacks."""
    rng = np.random.default_rng(0)
    facts = rng.random((400, 6))
    gains = np.clip(0.5 - facts[:, 0], 0.0, None)
    model = fitted(facts[:300], gains[:300])
    likely = np.argsort(-model.predict(facts[300:]))[:20]
    assert gains[300:][likely].mean() > 2.0 * gains[300:].mean()


def test_slit_learns_in_training_and_keeps_it(tmp_path) -> None:
    scheduler = Slit(training_days=1)
    scheduler.reset(TASK.world, 0)
    assert scheduler.train(TASK) == []
    rows = scheduler.weights()["gains"]
    assert len(rows) >= 3 * TASK.world.epochs_per_day  # 12 calls are left of 32: three searches
    assert rows.min() == 0.0 < rows.max()
    scheduler.save(tmp_path / "policy.npz")
    stored, untrained, chance = Slit(), Slit(), Slit(guided=False)
    for each in (stored, chance):
        each.load(tmp_path / "policy.npz")
    days = [
        run_day(TASK, each, TASK.test_days()[0], 5, "").nodes_on
        for each in (scheduler, stored, untrained, chance)
    ]
    np.testing.assert_array_equal(days[0], days[1])
    np.testing.assert_array_equal(days[2], days[3])
    assert not np.array_equal(days[0], days[2])


def test_slit_without_training_days_searches_by_chance(tmp_path) -> None:
    scheduler = Slit(training_days=0)
    scheduler.train(TASK)
    scheduler.save(tmp_path / "policy.npz")
    scheduler.load(tmp_path / "policy.npz")
    scheduler.plan(first_observation(scheduler))
    assert scheduler.weights() == {}


def test_facts_are_of_the_plan_and_of_what_all_face() -> None:
    held = Held(np.zeros((2, 8)), np.ones((2, 4)), np.eye(4)[:2])
    facts = features(observation().forecast, held)
    assert facts.shape == (2, 8 + 4 + 4 + 3 * 3 + 1)
    np.testing.assert_array_equal(facts[0, 16:], facts[1, 16:])
    assert facts[0, -1] == pytest.approx(observation().forecast.arrival_rate_per_s.sum())


TUNED = sorted(path.stem for path in (compose.conf_dir() / "tuning").glob("*.yaml"))


@pytest.mark.parametrize("method", TUNED)
def test_every_method_has_as_many_valid_settings_to_try(method: str) -> None:
    every, trials = tune.combinations([f"method={method}"])
    found = tune.runs(every[0], trials)
    assert len(found) == tune.TRIALS
    assert len({tune.identity(run) for _, run in found}) == tune.TRIALS
    assert found[0][1].method == compose.compose([f"method={method}"]).method


def test_the_default_is_tried_first_and_draws_repeat() -> None:
    values = {"a": [1, 2, 3], "b": [True, False]}
    drawn = tune.candidates(values, {"a": 2, "b": False, "c": 0}, 4)
    assert drawn[0] == {"a": 2, "b": False}
    assert len({tuple(setting.values()) for setting in drawn}) == 4
    assert drawn == tune.candidates(values, {"a": 2, "b": False, "c": 0}, 4)
    with pytest.raises(UserError, match="there are 6 settings to try but trials=7"):
        tune.candidates(values, {"a": 2, "b": False}, 7)


def test_scores_by_hand() -> None:
    ratios = dict(zip(OBJECTIVES, (2.0, 0.5, 0.25, 1.0), strict=True))
    assert tune.score(ratios, "balanced") == pytest.approx(0.25**0.25)
    assert tune.score(ratios, "water_l") == 0.25
    with pytest.raises(UserError, match="not positive"):
        tune.score(ratios | {"cost_usd": -0.1}, "balanced")


def test_tuning_scores_validation_days_alone_and_resumes(tmp_path, monkeypatch) -> None:
    seen = []

    def spied(task, scheduler, start, seed, variant):
        seen.append(start)
        return run_day(task, scheduler, start, seed, variant)

    monkeypatch.setattr(tune, "load_run", lambda run: TASK)
    monkeypatch.setattr(tune, "run_day", spied)
    arguments = ["method=nearest,weighted_round_robin", "trials=2"]
    tune.tune(tmp_path, arguments)
    assert set(seen) == set(TASK.days(VALIDATION))
    path = tmp_path / "tuning.csv"
    whole = path.read_bytes()
    table = pd.read_csv(path)
    assert list(table.columns) == list(tune.COLUMNS)
    assert table["method"].tolist() == ["nearest"] * 2 + ["weighted_round_robin"] * 2
    # The reference against itself.
    own = table[table["method"] == "weighted_round_robin"].iloc[0]
    assert own[list(tune.RATIOS.values())].tolist() == [1.0] * 4
    nearest = table[table["method"] == "nearest"]
    np.testing.assert_array_equal(nearest["score"], nearest["ttft_ratio"])
    assert nearest.loc[nearest["chosen"], "score"].item() == nearest["score"].min()
    # Cut off after the first setting, the rest is done again and the file is the same.
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    seen.clear()
    tune.tune(tmp_path, arguments)
    assert len(seen) == 4  # the reference and three settings, a day each
    assert path.read_bytes() == whole
    tune.tune(tmp_path, arguments)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["method=helix_as_run"], "there is nothing to tune for method=helix_as_run"),
        (["method=nsga2", "seed=0,1"], "seed=0 is one of several"),
        (["method=nsga2", "trials=none"], "trials=none is not a count"),
    ],
)
def test_what_cannot_be_tuned_is_one_sentence(tmp_path, arguments, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        tune.tune(tmp_path, arguments)
