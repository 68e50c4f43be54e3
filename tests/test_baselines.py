"""Baselines on cases that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from test_schedulers import TASK, first_observation, site_requests

from marlin.fleet.contract import Plan, joined
from marlin.fleet.power_down import sized_plan
from marlin.schedulers.casper import servers_and_shares
from marlin.schedulers.greedy import Greedy
from marlin.schedulers.helix import HelixAsRun, max_flow
from marlin.schedulers.jsq import Jsq, level
from marlin.schedulers.perllm import CsUcb, PerLlm, by_index
from marlin.schedulers.transport import transport
from marlin.schedulers.ttft_greedy import TtftGreedy
from marlin.schedulers.waterwise import WaterWise
from marlin.schedulers.weighted_round_robin import WeightedRoundRobin


def test_water_fills_the_lowest_queues_first() -> None:
    # Levels 0.1, 0.4 and 2 before; 0.9 more lifts the first two to 0.7 each.
    shares = level(np.array([0.1, 0.4, 2.0]), np.ones(3), 0.9)
    np.testing.assert_allclose(shares, [0.6 / 0.9, 0.3 / 0.9, 0.0])
    np.testing.assert_allclose(level(np.zeros(2), np.array([3.0, 1.0]), 0.0), [0.75, 0.25])


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 5)), min_size=1, max_size=6),
    st.floats(1e-3, 20),
)
def test_no_queue_that_grows_ends_above_one_that_does_not(sites, inflow) -> None:
    pending, size = (np.array(column) for column in zip(*sites, strict=True))
    share = level(pending, size, inflow)
    assert share.min() >= 0.0
    assert share.sum() == pytest.approx(1.0)
    after = (pending + share * inflow) / size
    grown = share > 1e-9
    assert after[grown].max() <= after.min() + 1e-6


def test_queues_push_demand_away() -> None:
    scheduler = Jsq()
    observation = first_observation(scheduler)
    backlog = observation.state.backlog.copy()
    backlog[0, 0] = 1e5
    crowded = replace(observation, state=replace(observation.state, backlog=backlog))
    before = site_requests(observation, scheduler.plan(observation))
    after = site_requests(crowded, scheduler.plan(crowded))
    np.testing.assert_allclose(before, before.mean())
    assert after[0] == pytest.approx(0.0, abs=1e-9)


def test_weights_of_round_robin_are_capacities() -> None:
    scheduler = WeightedRoundRobin()
    observation = first_observation(scheduler)
    nodes = TASK.world.constants.nodes * np.array([[1.0], [2.0], [3.0]])
    world = replace(TASK.world, constants=replace(TASK.world.constants, nodes=nodes))
    plan = scheduler.plan(replace(observation, world=world))
    np.testing.assert_allclose(plan.routing[0, 0, 0, 0], np.array([1, 2, 3]) / 6)


@pytest.mark.parametrize(("objective", "site"), [("carbon", "clean-far"), ("cost", "dry-cheap")])
def test_greedy_schedulers_reach_the_optimum_of_light_demand(
    objective: Literal["carbon", "cost"], site: str
) -> None:
    scheduler = Greedy(name="x", objective=objective)
    observation = first_observation(scheduler)
    demand = 0.05 * observation.forecast.arrival_rate_per_s
    light = replace(observation, forecast=replace(observation.forecast, arrival_rate_per_s=demand))
    routed = site_requests(light, scheduler.plan(light))
    assert TASK.world.sites[routed.argmax()] == site
    assert routed.max() == pytest.approx(demand.sum())


def test_greedy_counts_the_energy_of_a_site_and_not_only_its_grid() -> None:
    """A site of older nodes needs 2 % more energy for the same work than its grid is cleaner."""
    scheduler = Greedy(name="x", objective="carbon")
    observation = first_observation(scheduler)
    old_and_new = np.array([[9.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
    world = replace(TASK.world, constants=replace(TASK.world.constants, nodes=old_and_new))
    for clean, gets_all in ((295.0, False), (285.0, True)):
        forecast = replace(
            observation.forecast,
            carbon_g_per_kwh=np.array([[clean, 300.0, 300.0]]),
            pue=np.ones((1, 3)),
            arrival_rate_per_s=0.02 * observation.forecast.arrival_rate_per_s,
        )
        seen = replace(observation, forecast=forecast, world=world)
        routed = site_requests(seen, scheduler.plan(seen))
        assert (routed.argmax() == 0) == gets_all


def test_ttft_greedy_carries_out_the_fastest_way_to_power_the_nearest_sites() -> None:
    """No candidate of its own is faster: every node on, or sized at any of its targets."""
    scheduler = TtftGreedy()
    observation = first_observation(scheduler)
    world, seen = TASK.world, observation.forecast
    nearest = np.eye(len(world.sites))[world.constants.rtt_s.argmin(axis=1)]
    routing = np.broadcast_to(
        nearest[None, :, None, None], (1, *world.class_shape, len(world.sites))
    )
    sized = [
        sized_plan(world, routing, seen.arrival_rate_per_s, target) for target in scheduler.targets
    ]
    others = [*sized, Plan(sized[0].routing, np.ones_like(sized[0].power))]
    chosen = scheduler.plan(observation)
    _, outcome = observation.simulate(joined([chosen, *others]))
    assert outcome.ttft_s[0] == pytest.approx(outcome.ttft_s[1:].min())
    assert np.ptp(outcome.ttft_s) > 0.0


def test_transport_finds_the_optimum_on_paper() -> None:
    # Class 0 saves 9 by going to site 0, class 1 saves 1; site 0 has room for one of them.
    cost = np.array([[1.0, 10.0], [1.0, 2.0]])
    shares = transport(cost, np.ones((2, 2)), np.array([1.0, 5.0]))
    np.testing.assert_allclose(shares, [[1, 0], [0, 1]], atol=1e-9)
    # Without room anywhere all is placed all the same.
    tight = transport(cost, np.ones((2, 2)), np.array([0.1, 0.1]))
    np.testing.assert_allclose(tight.sum(axis=1), 1.0)
    barred = transport(cost, np.ones((2, 2)), np.full(2, 5.0), np.array([[False, True]] * 2))
    np.testing.assert_allclose(barred, [[0, 1], [0, 1]], atol=1e-9)


def test_casper_trades_servers_for_carbon_by_its_weight() -> None:
    load = np.full((1, 2), 0.4)
    # Half of the servers of either site: five of the clean one, two of the other.
    servers = np.array([10.0, 4.0])
    carbon = np.array([1.0, 3.0])
    every = np.ones((1, 2), bool)
    green = servers_and_shares(load, carbon, servers, 0.8, 0.9, every)
    lean = servers_and_shares(load, carbon, servers, 0.8, 0.0, every)
    assert green is not None
    assert lean is not None
    np.testing.assert_allclose(green, [[1, 0]], atol=1e-6)  # least carbon
    np.testing.assert_allclose(lean, [[0, 1]], atol=1e-6)  # two servers instead of five
    assert servers_and_shares(9 * load, carbon, servers, 0.8, 0.9, every) is None


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_helix_flow_is_the_maximum_flow(origins: int, sites: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    supply, capacity = rng.integers(0, 20, origins), rng.integers(0, 20, sites)
    flow = max_flow(supply.astype(float), capacity.astype(float), rng.random((origins, sites)))
    graph = np.zeros((origins + sites + 2,) * 2, dtype=np.int32)
    graph[0, 1 : origins + 1] = supply
    graph[1 : origins + 1, origins + 1 : -1] = 1000
    graph[origins + 1 : -1, -1] = capacity
    best = maximum_flow(csr_array(graph), 0, origins + sites + 1).flow_value
    assert flow.sum() == pytest.approx(best)
    assert (flow.sum(axis=1) <= supply + 1e-9).all()
    assert (flow.sum(axis=0) <= capacity + 1e-9).all()


def test_helix_as_run_sends_each_bucket_whole_to_the_emptiest_site() -> None:
    scheduler = HelixAsRun()
    plan = scheduler.plan(first_observation(scheduler))
    assert set(np.unique(plan.routing)) == {0.0, 1.0}
    # Four buckets on three sites: every site gets one.
    assert (plan.routing.sum(axis=(0, 1, 2, 3)) > 0).all()
    assert (plan.power[:, :, 0] == 1.0).all()


def test_waterwise_remembers_what_sites_were() -> None:
    """A site that turns clean for one epoch wins at once, unless ten dirty ones weigh as much."""
    observation = first_observation(WaterWise())
    carbon = observation.forecast.carbon_g_per_kwh.copy()
    carbon[0, 1] = 0.9 * carbon[0, 0]
    demand = 0.05 * observation.forecast.arrival_rate_per_s
    forecast = replace(observation.forecast, arrival_rate_per_s=demand)
    usual = replace(observation, forecast=forecast)
    clean = replace(usual, forecast=replace(forecast, carbon_g_per_kwh=carbon))
    for reference_weight, site in ((0.0, 1), (1.0, 0)):
        scheduler = WaterWise(
            carbon_weight=1.0,
            water_weight=0.0,
            reference_weight=reference_weight,
            delay_tolerance_s=9.0,
        )
        scheduler.reset(TASK.world, 0)
        for _ in range(10):
            assert site_requests(usual, scheduler.plan(usual)).argmax() == 0
        assert site_requests(clean, scheduler.plan(clean)).argmax() == site


def test_regret_of_the_bandit_grows_like_the_logarithm_of_time() -> None:
    """From 10^2 to 10^4 rounds of a stationary bandit ``a + b ln t`` fits, ``a + b t`` does not."""
    means = np.array([-1.0, -0.6, -0.8])
    bandits, rounds = 20, 10_000
    marks = np.unique(np.geomspace(100, rounds, 60).astype(int)) - 1
    for seed in range(3):
        rng = np.random.default_rng(seed)
        known, lost = CsUcb.untried(bandits, 3), []
        for _ in range(rounds):
            arm = known.index(exploration=0.5, penalty=0.0).argmax(axis=1)
            share = np.eye(3)[arm]
            reward = means + 0.1 * rng.standard_normal((bandits, 3))
            known = known.learned(reward, 0.0 * share, share)
            lost.append((means.max() - means[arm]).mean())
        regret = np.cumsum(lost)[marks]
        left = {}
        for name, time in (("logarithm", np.log(marks + 1)), ("line", marks + 1.0)):
            _, residual, *_ = np.polyfit(time, regret, 1, full=True)
            left[name] = residual[0] / ((regret - regret.mean()) ** 2).sum()
        assert left["logarithm"] < 0.02  # of the variance
        assert left["line"] > 10 * left["logarithm"]
        # A policy that never learns loses 0.2 a round on average.
        assert regret[-1] < 0.02 * 0.2 * rounds


def test_violations_push_an_arm_back() -> None:
    known = CsUcb.untried(1, 2)
    share = np.full((1, 2), 0.5)
    for _ in range(20):
        known = known.learned(np.array([[-0.5, -1.0]]), np.array([[1.0, 0.0]]), share)
    assert known.index(0.1, 0.0).argmax() == 0
    assert known.index(0.1, 1.0).argmax() == 1


def test_arms_without_room_pass_what_is_left_to_the_next() -> None:
    load = np.array([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
    index = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    everywhere, model = np.ones((1, 3)), np.array([0, 0])
    room = np.array([0.6, 0.5, 0.4])
    shares = by_index(index, np.zeros_like(index), load, everywhere, model, room)
    np.testing.assert_allclose(shares[0], [0.6, 0.4, 0.0])
    np.testing.assert_allclose(shares[1], [0.0, 0.2, 0.8])


def test_nodes_that_run_the_model_are_filled_before_others_are_woken() -> None:
    """Class 0 likes arm 0, where its model does not run; class 1 does not find enough that runs."""
    load = np.array([[0.4, 0.4], [0.8, 0.8]])
    index = np.array([[2.0, 1.0], [2.0, 1.0]])
    running, model = np.array([[0.0, 0.5], [0.2, 0.2]]), np.array([0, 1])
    shares = by_index(index, np.zeros_like(index), load, running, model, np.array([0.7, 0.7]))
    np.testing.assert_allclose(shares[0], [0.0, 1.0])
    # 0.2 where it runs at either arm, then 0.4 woken at arm 0, which has room up to 0.7.
    np.testing.assert_allclose(shares[1] * 0.8, [0.6, 0.2])


def test_perllm_starts_a_day_with_what_it_learned(tmp_path) -> None:
    scheduler = PerLlm(training_days=1)
    scheduler.reset(TASK.world, 0)
    scheduler.train(TASK)
    scheduler.save(tmp_path / "policy.npz")
    trained = PerLlm()
    trained.reset(TASK.world, 0)
    trained.load(tmp_path / "policy.npz")
    trained.reset(TASK.world, 1)
    assert trained.weights()["rounds"] == TASK.world.epochs_per_day
    observation = first_observation(trained)
    untried = PerLlm()
    plans = [s.plan(first_observation(s)).routing for s in (trained, untried)]
    assert not np.array_equal(*plans)
    assert np.isfinite(trained.plan(observation).routing).all()
