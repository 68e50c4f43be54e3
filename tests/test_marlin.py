"""MARLIN: what agents see and say, what they are paid and learn from, and that they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CONF
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedulers import TASK, make_task

from marlin import compose
from marlin.errors import UserError
from marlin.evaluate import run_day, summary
from marlin.fleet.contract import OBJECTIVES, Plan, convert
from marlin.fleet.simulator import step
from marlin.fleet.world import VALIDATION, World
from marlin.schedulers.base import Budget, Observation
from marlin.schedulers.marlin import Marlin, codec, reward
from marlin.schedulers.marlin.agents import AGENTS, Learners
from marlin.schedulers.marlin.council import ROSTER, learn, make_learners, make_replay
from marlin.schedulers.marlin.replay import DualReplay, Replay, tried_scale
from marlin.schedulers.marlin.training import Groups, play_epoch
from marlin.schedulers.round_robin import RoundRobin

WORLD = TASK.world
SITES = len(WORLD.sites)
DAY = TASK.test_days()[0]
FORECAST = TASK.forecasts(np.array([DAY, DAY + 40]))
STATE = WORLD.idle_state(2)
SMALL: dict[str, Any] = {
    "actor_width": 32, "critic_width": 32, "within_capacity": 2000, "training_tries": 1,
    "training_updates": 2, "exploration_updates": 0, "online_updates": 1,
}  # fmt: skip
AS_RUN: dict[str, Any] = {
    "plans_on_truth": True, "weights_act": False, "shared_power": False, "steady": False,
    "settled": False, "per_request": False, "damped": False,
}  # fmt: skip
ABLATIONS = sorted(path.stem for path in (CONF / "ablation").glob("no_*.yaml"))


def actions(seed: int, rows: int) -> np.ndarray:
    """Random actions, from even to all at one site."""
    rng = np.random.default_rng(seed)
    size = codec.action_size(WORLD)
    latent = rng.choice([0.0, 0.5, 1.0]) * rng.uniform(-1, 1, (rows, size))
    return codec.squashed(torch.tensor(latent), SITES).numpy()


@given(
    seed=st.integers(0, 10_000), source=st.booleans(), weights=st.booleans(), power=st.booleans()
)
@settings(max_examples=50, deadline=None)
def test_every_action_is_a_plan(seed: int, source: bool, weights: bool, power: bool) -> None:
    options = Marlin(source_routing=source, weights_act=weights, shared_power=power)
    plan = codec.decode(options, WORLD, actions(seed, 2), FORECAST, STATE)
    np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
    assert (plan.routing >= 0).all()
    assert ((plan.power >= 0) & (plan.power <= 1)).all()
    assert plan.power.max(axis=(1, 2)).min() > 0.0
    assert np.isfinite(step(WORLD, STATE, plan, FORECAST)[1].ttft_s).all()


def test_a_state_has_four_numbers_a_site() -> None:
    seen = codec.observe(WORLD, FORECAST)
    assert seen.shape == (2, 4 * SITES) == (2, codec.state_size(WORLD))
    carbon, price, water, load = seen.reshape(2, 4, SITES).transpose(1, 0, 2)
    np.testing.assert_allclose(carbon, FORECAST.carbon_g_per_kwh / 1000)
    np.testing.assert_allclose(price, FORECAST.price_usd_per_mwh * FORECAST.pue / 200)
    np.testing.assert_allclose(water, (FORECAST.ewif_l_per_kwh + FORECAST.wue_l_per_kwh) / 10)
    # Both origins are nearest to the second site: all of the load, and half of it would be one.
    np.testing.assert_allclose(load, [[0, 2, 0]] * 2)


def test_actions_are_shares_and_sliders() -> None:
    latent = torch.zeros(1, codec.action_size(WORLD))
    latent[0, 0] = 0.5  # the first model's preference for the first site, times 2
    latent[0, -1] = 0.5
    action = codec.squashed(latent, SITES)[0]
    small, large, power = action.reshape(3, SITES)
    assert small[0] / small[1] == pytest.approx(np.e)
    torch.testing.assert_close(large, torch.full((SITES,), 1 / SITES))
    torch.testing.assert_close(power, torch.tensor([0.5, 0.5, 0.75]))
    torch.testing.assert_close(codec.projected(action, SITES), action)
    outside = torch.tensor([0.6, -0.2, 0.2, 0.0, 0.0, 2.0, -1.0, 0.5, 2.0])
    back = codec.projected(outside, SITES)
    by_hand = torch.tensor([0.75, 0.0, 0.25, 0.0, 0.0, 1.0, 0.0, 0.5, 1.0])
    torch.testing.assert_close(back, by_hand, atol=1e-6, rtol=0)


def test_shares_and_sliders_fit_each_other() -> None:
    even = np.full((1, 2, 12), 1 / 12)
    share, slider = codec.coherent(even, np.full((1, 12), 0.2))
    np.testing.assert_allclose(share, even)
    # The first of equals is the one preferred most: never below 0.7.
    np.testing.assert_allclose(slider, [[0.7, *[0.2] * 11]])
    # Mean shares 0.6, 0.36 and 0.04: the last is off, the first gets 1.4 x 0.6.
    share = np.array([[[0.7, 0.25, 0.05], [0.5, 0.47, 0.03]]])
    share, slider = codec.coherent(share, np.array([[0.1, 0.5, 0.9]]))
    np.testing.assert_allclose(slider, [[0.84, 0.5, 0.0]])
    np.testing.assert_allclose(
        share, [[[0.7 / 0.95, 0.25 / 0.95, 0], [0.5 / 0.97, 0.47 / 0.97, 0]]]
    )
    runs = np.array([[True, False, True]])
    shares = [0.6, 0.36, 0.04], [0.6, 0.34, 0.06], [0.91, 0.07, 0.02], [0.89, 0.08, 0.03]
    # A site that runs is kept down to 2.5 %, one that does not is started from 7.5 %.
    for row, on in zip(shares, ([1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]), strict=True):
        kept, _ = codec.coherent(np.array([[row]]), np.full((1, 3), 0.5), runs)
        assert (kept[0, 0] > 0).tolist() == [bool(flag) for flag in on]
    apart = np.full((1, 30, 3), [0.0, 0.5, 0.5])
    apart[0, 0] = [1.0, 0.0, 0.0]  # one model of thirty at a site that is off without the others
    share, _ = codec.coherent(apart, np.full((1, 3), 0.5))
    np.testing.assert_allclose(share, np.full((1, 30, 3), [0.0, 0.5, 0.5]), atol=1e-6)
    many, _ = codec.coherent(np.full((1, 1, 64), 1 / 64), np.full((1, 64), 0.2))
    np.testing.assert_allclose(many, 1 / 64)  # an even share of many sites is no reason to be off


def test_sliders_switch_node_types_on_in_their_order() -> None:
    six = replace(WORLD, constants=replace(WORLD.constants, nodes=np.ones((7, 6))))
    slider = np.array([[0.0, 0.14, 0.15, 0.5, 0.85, 0.86, 1.0]])
    # floor(6.99 x): 0, 0, 1, 3, 5, 6, 6
    on = codec.node_types_on(six, slider)[0]
    assert on.sum(axis=1).tolist() == [0, 0, 1, 3, 5, 6, 6]
    assert (np.diff(on, axis=1) <= 0).all()
    lacking = replace(WORLD, constants=replace(WORLD.constants, nodes=np.array([[0.0, 5.0, 5.0]])))
    assert codec.node_types_on(lacking, np.array([[0.5]])).tolist() == [[[0.0, 1.0, 0.0]]]


def world_of_two() -> World:
    """Two origins at 0 and 0.1 s from two of three sites, and the other way round."""
    rtt = np.array([[0.0, 0.1, 0.2], [0.1, 0.0, 0.3]])
    return replace(WORLD, constants=replace(WORLD.constants, rtt_s=rtt))


def test_requests_stay_near_within_the_shares_of_sites() -> None:
    demand = np.zeros((1, 2, 2, 2))
    demand[0, :, 0] = [[6.0, 2.0], [1.0, 1.0]]  # small model: 8 from the west, 2 from the east
    demand[0, :, 1] = [[1.0, 0.0], [0.0, 1.0]]
    share = np.array([[[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]]])
    routing = codec.near_first(world_of_two(), share, demand)
    # West keeps 5 of 8; east 2 of 2; what is left in the second site, 1, is nearer than the third.
    np.testing.assert_allclose(routing[0, 0, 0], [[0.625, 0.125, 0.25]] * 2, atol=1e-7)
    np.testing.assert_allclose(routing[0, 1, 0], [[0.0, 1.0, 0.0]] * 2, atol=1e-7)
    np.testing.assert_allclose(routing[0, :, 1], [[[0, 0, 1]] * 2] * 2, atol=1e-7)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_sites_get_the_shares_that_they_were_given(seed: int) -> None:
    action = actions(seed, 2)
    share = action[:, :-SITES].reshape(2, 2, SITES)
    demand = FORECAST.arrival_rate_per_s
    routing = codec.near_first(WORLD, share, demand)
    sent = np.einsum("boms,bomsd->bmd", demand, routing)
    np.testing.assert_allclose(sent / sent.sum(axis=2, keepdims=True), share, atol=1e-6)


def test_as_run_only_overflow_is_moved_and_weights_do_not_act() -> None:
    options, demand = Marlin(**AS_RUN), 0.5 * FORECAST.arrival_rate_per_s
    world = world_of_two()
    roomy = codec.overflowing(world, np.ones((2, SITES)), demand)
    np.testing.assert_allclose(roomy[:, 0, ..., 0], 1.0)
    np.testing.assert_allclose(roomy[:, 1, ..., 1], 1.0)
    tight = codec.overflowing(world, np.array([[0.0, 1.0, 0.25]] * 2), demand)
    assert (tight[..., 0] == 0.0).all()
    assert (tight[:, 0, ..., 1] > tight[:, 0, ..., 2]).all()
    rows = np.ones((2, codec.action_size(WORLD)))
    rows[:, : 2 * SITES] = [[0.5, 0.3, 0.2] * 2, [0.2, 0.1, 0.7] * 2]  # all sites stay on
    same = np.array([0, 0])
    now = TASK.forecasts(DAY + same)
    for acts in (False, True):
        plan = codec.decode(replace(options, weights_act=acts), WORLD, rows, now, STATE)
        routing = plan.routing
        assert np.array_equal(routing[0], routing[1]) != acts


def test_rules_of_thumb_are_actions() -> None:
    table = torch.tensor(codec.heuristic(WORLD, FORECAST))
    assert table.shape == (2, AGENTS, codec.action_size(WORLD))
    torch.testing.assert_close(codec.projected(table, SITES), table, atol=1e-6, rtol=0)
    clean = table[:, 1, :SITES].argmax(dim=1)
    np.testing.assert_array_equal(clean, FORECAST.carbon_g_per_kwh.argmin(axis=1))


def test_equation_seven_by_hand() -> None:
    mean = np.array([0.5, 100.0, 1.0, 20.0])  # water's is below its floor of 5
    table = np.array([[0.25, 150.0, 2.5, 20.0]])
    found = reward.rewards(table, mean, np.array([0.9]), np.array([0.25]), np.array([0.5]))
    eco = 0.05 * (0.75 * 0.9 * 0.5 + 0.9 * 0.5)
    penalty = 1.5 * 0.1
    by_hand = [
        4.5 * 0.5**2 - 12 * 0.5 - penalty,
        -8 * 1.5 + eco - penalty,
        3 * 0.5**2 - 8 * 0.5 + eco - penalty,
        -8 * 1.0 + eco - penalty,
    ]
    np.testing.assert_allclose(found, [by_hand])
    long = reward.rewards(
        50 * table, mean, np.array([0.9]), np.array([0.25]), np.array([0.5]), damped=True
    )
    np.testing.assert_allclose(long[0, 0], -12 * (1 + np.log(25)) - penalty)


def test_running_means_start_with_the_first_epoch_and_move_by_a_twentieth() -> None:
    first = reward.next_mean(None, np.array([[1.0, 10.0, 10.0, 1.0]]))
    np.testing.assert_allclose(first, [1, 10, 10, 1])
    worlds = np.array([[3.0, 20.0, 10.0, 1.0], [5.0, 0.0, 10.0, 1.0], [1e6, 0.0, 10.0, 1.0]])
    second = reward.next_mean(first, worlds)
    np.testing.assert_allclose(second, [1 + 0.05 * 4, 10 - 0.05 * 10, 10, 1])


def test_what_is_off_is_counted() -> None:
    power = np.zeros((1, SITES, 2))
    power[0, 0] = [1.0, 0.5]
    pools, sites = reward.switched_off(WORLD, Plan(np.zeros((1, 2, 2, 2, SITES)), power))
    assert pools[0] == pytest.approx(4.5 / 6)
    assert sites[0] == pytest.approx(2 / 3)


def test_totals_per_request_do_not_depend_on_demand() -> None:
    plan = codec.decode(Marlin(), WORLD, actions(0, 2), FORECAST, STATE)
    outcome = step(WORLD, STATE, plan, FORECAST)[1]
    totals, rates = (reward.metrics(WORLD, outcome, flag) for flag in (False, True))
    np.testing.assert_array_equal(totals[:, 0], rates[:, 0])
    doubled = replace(outcome, carbon_kg=2 * outcome.carbon_kg, served=2 * outcome.served)
    np.testing.assert_allclose(reward.metrics(WORLD, doubled, True)[:, 1], rates[:, 1])
    np.testing.assert_allclose(reward.metrics(WORLD, doubled, False)[:, 1], 2 * totals[:, 1])


def test_replay_draws_in_proportion_to_priority_and_forgets_the_oldest() -> None:
    ring = Replay(4, 1, 1)
    for value in range(6):
        row = np.full((1, 1), float(value))
        ring.add(row, row, np.repeat(row, AGENTS, axis=1), row)
    assert sorted(ring.state[:, 0].tolist()) == [2.0, 3.0, 4.0, 5.0]
    ring.priority[:] = [1.0, 0.0, 0.0, 2.0]
    ring.priority[1] = [0.0, 1.0, 0.0, 0.0]
    drawn = ring.draw(20_000, np.random.default_rng(0))
    assert set(drawn[1]) == {1}
    share = np.bincount(drawn[0], minlength=4) / len(drawn[0])
    heavy = 2**0.6 / (1 + 2**0.6)
    np.testing.assert_allclose(share, [1 - heavy, 0, 0, heavy], atol=0.015)


def test_dual_replay_mixes_and_gives_errors_back_to_where_rows_came_from() -> None:
    replay = DualReplay(1, 1, across=10, within=10, dual=True)
    one, paid = np.ones((10, 1)), np.tile(np.arange(1.0, 5.0), (10, 1))
    replay.across.add(one, one, paid, one)
    replay.within.add(-one, one, paid, one)
    batch, drawn = replay.draw(10, 0.7, np.random.default_rng(0))
    assert (batch.state > 0).sum(dim=1).flatten().tolist() == [7] * AGENTS
    assert batch.reward.tolist() == [[float(agent + 1)] * 10 for agent in range(AGENTS)]
    replay.reprioritise(drawn, torch.arange(10.0).expand(AGENTS, 10))
    assert replay.across.priority[0, drawn[0][1][0]].max() == pytest.approx(6.001)
    assert replay.within.priority[0, drawn[1][1][0]].max() == pytest.approx(9.001)
    single = DualReplay(1, 1, across=10, within=10, dual=False)
    assert single.across is single.within
    assert single.within.capacity == 20


def test_tries_of_others_are_relabelled_at_a_lower_priority_or_not_learned_from() -> None:
    scale = tried_scale(2 * AGENTS, 1.0, 0.4)
    assert scale[0].tolist() == [1.0, 0.4, 0.4, 0.4] * 2
    assert scale[3].tolist() == [0.4, 0.4, 0.4, 1.0] * 2
    one = np.arange(8.0)[:, None]
    paid = np.arange(32.0).reshape(8, AGENTS)
    replay = DualReplay(1, 1, across=10, within=10, dual=True)
    replay.within.add(one, one, paid, one, tried_scale(8, 1.0, 0.0))
    batch, drawn = replay.draw(50, 0.7, np.random.default_rng(0))
    assert [set(rows % AGENTS) for rows in drawn[0][1]] == [{0}, {1}, {2}, {3}]
    # Rewards are each agent's own, of rows that it proposed: row r, agent n holds 4 r + n.
    rows = batch.state[..., 0]
    torch.testing.assert_close(batch.reward, 4 * rows + torch.arange(4.0)[:, None])


def learned(options: Marlin, epochs: int = 3) -> tuple[Learners, DualReplay, Groups]:
    """What a few epochs of training leave."""
    rng = np.random.default_rng(0)
    learners, replay = make_learners(options, WORLD, 0), make_replay(options, WORLD)
    groups = Groups(options, TASK, np.array([TASK.days(0)[0]] * 2), np.array([0, 40]))
    for _ in range(epochs):
        play_epoch(learners, groups, replay, options.blend_start)
        learn(learners, replay, options.training_updates, rng)
    return learners, replay, groups


@pytest.mark.parametrize("changes", [{}, AS_RUN], ids=["fair", "as run"])
def test_an_epoch_teaches_all_agents_and_pays_capital(changes: dict[str, Any]) -> None:
    learners, replay, groups = learned(Marlin(**SMALL | changes))
    assert replay.within.size == 3 * 10 * AGENTS
    assert replay.across.size == 3 * 10
    assert learners.mean is not None
    assert np.isfinite(learners.mean).all()
    assert (groups.capital != 100.0).all()
    assert groups.capital.shape == (2, AGENTS)
    assert groups.weights.shape == (2 * len(ROSTER), AGENTS)
    rings = (replay.within, replay.across)
    assert all(torch.isfinite(ring.reward[: ring.size]).all() for ring in rings)


def method(ablation: str) -> dict[str, Any]:
    """The settings of MARLIN under an ablation."""
    return compose.compose(["method=marlin", f"ablation={ablation}"]).method


ABLATED: dict[str, dict[str, Any]] = {
    "no_film": {"film": False},
    "no_veto": {"veto": False},
    "no_dual_buffer": {"dual_buffer": False},
    "no_her": {"hindsight": False},
    "no_capital": {"capital": False},
    "no_source_routing": {"source_routing": False},
    "no_heuristic": {"blend_start": 0.0},
    "no_phase2": {"phase2": False},
    "no_sgd": {"exploration_updates": 0, "online_updates": 0},
    "no_exploration": {"training_tries": 0, "explorations": 0},
}


def test_the_ten_ablations_of_the_paper_are_there() -> None:
    assert set(ABLATED) == set(ABLATIONS)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_changes_its_part_and_nothing_else(ablation: str) -> None:
    full, without = method("none"), method(ablation)
    changed = {name: without[name] for name in full if without[name] != full[name]}
    asked = ABLATED[ablation]
    assert changed.items() <= asked.items()
    assert changed
    assert all(without[name] == value for name, value in asked.items())
    with pytest.raises(UserError, match="unknown"):
        compose.compose(["method=nearest", f"ablation={ablation}"])


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_has_its_effect(ablation: str) -> None:
    options = Marlin(**SMALL | ABLATED[ablation])
    learners, replay, groups = learned(options, epochs=1)
    whole, full_replay, _ = learned(Marlin(**SMALL), epochs=1)
    names = set(learners.pack())
    extra = {name for name in whole.pack() if "film" in name}
    assert set(whole.pack()) - names == (extra if ablation == "no_film" else set())
    others = replay.within.priority[0, 1 : 1 + AGENTS - 1]
    assert (others.max() == 0.0) == (ablation in ("no_her", "no_exploration"))
    assert (replay.across is replay.within) == (ablation == "no_dual_buffer")
    assert bool((groups.capital == 100.0).all()) == (ablation == "no_capital")
    empty = ablation == "no_exploration"
    assert (replay.within.size == 0) == empty
    same = not empty and torch.equal(replay.within.action[:8], full_replay.within.action[:8])
    assert same != (ablation in ("no_film", "no_heuristic", "no_exploration"))


def test_training_repeats_bit_for_bit_and_policies_survive_a_file(tmp_path: Path) -> None:
    weights, curves = [], []
    for _ in range(2):
        scheduler = Marlin(**SMALL)
        scheduler.reset(WORLD, 0)
        curves.append(scheduler.train(TASK))
        weights.append(scheduler.weights())
    assert curves[0] == curves[1]
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])
    scheduler.save(tmp_path / "policy.npz")
    restored = Marlin(**SMALL)
    restored.load(tmp_path / "policy.npz")
    days = []
    for each in (scheduler, restored):
        day = run_day(TASK, each, DAY, 0, "carbon")
        days.append(summary(day.outcomes))
    assert days[0] == days[1]


@pytest.mark.parametrize(("calls", "used"), [(64, 21), (21, 21), (16, 13), (5, 5), (4, 0)])
def test_decisions_stay_within_the_budget(calls: int, used: int) -> None:
    """Five schemes where there is room for them, then up to four tries an agent."""
    scheduler = Marlin(**SMALL)
    scheduler.reset(WORLD, 0)
    observation = TASK.observation(DAY, WORLD.idle_state(1))
    observation = replace(observation, budget=Budget(calls))
    scheduler.plan(observation)
    assert observation.budget.used == used


class Recorder(RoundRobin):
    """Remembers what it was shown."""

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        self.shown = observation.forecast
        return super().plan(observation)


@pytest.mark.parametrize("on_truth", [False, True])
def test_only_a_method_that_says_so_is_shown_the_truth(on_truth: bool) -> None:
    task = replace(TASK, forecast=convert(TASK.forecast, lambda values: 0.9 * values))
    scheduler = Recorder()
    scheduler.plans_on_truth = on_truth
    run_day(task, scheduler, DAY, 0, "")
    last = np.array([DAY + WORLD.epochs_per_day - 1])
    expected = (task.truth if on_truth else task.forecasts)(last)
    np.testing.assert_array_equal(scheduler.shown.pue, expected.pue)


def test_pack_and_unpack_are_inverse() -> None:
    first, second = (make_learners(Marlin(**SMALL), WORLD, seed) for seed in (0, 1))
    second.unpack(first.pack())
    for name, value in first.pack().items():
        np.testing.assert_array_equal(second.pack()[name], value)


def test_transfer_copies_the_layers_whose_shapes_agree_and_no_others() -> None:
    small = make_learners(Marlin(**SMALL), WORLD, 0)
    options = Marlin(**SMALL)
    large = Learners(options, 4 * 5, 3 * 5, 5, 1)
    before, given_layers = large.pack(), small.pack()
    taken = set(large.transfer(given_layers))
    after = large.pack()
    # All but the layers that see all sites (first ones) or name them (heads of the actor).
    kept = {
        "actor.trunk.0.weight", "actor.mean.weight", "actor.mean.bias", "actor.log_std.weight",
        "actor.log_std.bias", "critics.weights.0", "log_temperature",
    }  # fmt: skip
    assert set(after) - taken == kept
    for name, value in after.items():
        np.testing.assert_array_equal(value, (given_layers if name in taken else before)[name])


def test_training_can_start_from_the_policy_of_another_fleet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        Marlin(**SMALL, start_from=str(tmp_path / "none.npz")).train(TASK)
    first = Marlin(**SMALL)
    first.train(TASK)
    first.save(tmp_path / "policy.npz")
    earlier = Marlin(**SMALL, start_from=str(tmp_path / "policy.npz")).earlier()
    learners = make_learners(Marlin(**SMALL), WORLD, 5)
    assert "actor.mean.weight" in learners.transfer(earlier)


@pytest.mark.slow
def test_it_learns() -> None:
    """Three variants end better on their own objective than they began, on unseen days."""
    task = make_task(
        budget={
            "name": "x",
            "training_epochs": 12_288,
            "worlds": 20,
            "checkpoints": 1,
            "calls_per_decision": 32,
        }
    )
    assert task.days(VALIDATION)
    changes: dict[str, Any] = {"actor_rate": 1e-3, "training_updates": 20}
    scheduler = Marlin(**SMALL | changes)
    scheduler.reset(task.world, 0)
    rows = {(r["variant"], r["training_epochs"] > 0): r for r in scheduler.train(task)}
    for variant, objective in zip(("carbon", "water", "cost"), OBJECTIVES[1:], strict=True):
        before, after = rows[variant, False][objective], rows[variant, True][objective]
        assert after < 0.85 * before, (variant, before, after)
