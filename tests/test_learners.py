"""Learned baselines: what they share keeps its promises, and each of them learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedulers import TASK, make_task

from marlin.evaluate import run_day, summary
from marlin.fleet.contract import OBJECTIVES, convert
from marlin.fleet.simulator import step
from marlin.fleet.world import TRAIN
from marlin.schedulers.actor_critic import ActorCritic, ActorCriticAsRun
from marlin.schedulers.base import Scheduler
from marlin.schedulers.ddqn import Ddqn, DdqnAsRun
from marlin.schedulers.fill import fill_by_cost
from marlin.schedulers.greedy import Greedy
from marlin.schedulers.ippo import Ippo
from marlin.schedulers.learning.consolidation import Epoch, consolidated
from marlin.schedulers.learning.exploration import Perseverance, falling
from marlin.schedulers.learning.features import (
    CARBON,
    DEMAND,
    FLEET_LOAD,
    NODES_ON,
    SITE_FEATURES,
    observe,
    of_sites,
    state_size,
)
from marlin.schedulers.learning.networks import Mlps, log_density, log_squash, mixed, seeded
from marlin.schedulers.learning.ppo import standardised
from marlin.schedulers.learning.practice import Practice, Transition
from marlin.schedulers.learning.presets import presets, start_logits
from marlin.schedulers.learning.proposals import agreed
from marlin.schedulers.learning.ranking import (
    ACTION_SIZE,
    MOST_USED,
    decode,
    fill_ranked,
    start_latent,
)
from marlin.schedulers.learning.replay import Draw, Ring
from marlin.schedulers.learning.returns import advantages, td_target
from marlin.schedulers.learning.rewards import (
    even_split,
    log_ratio_rewards,
    metrics_per_served,
)
from marlin.schedulers.learning.scheduler import LearnedScheduler, keep_better, part
from marlin.schedulers.loads import load_per_request_per_s
from marlin.schedulers.mappo import Mappo
from marlin.schedulers.q_learning import QLearning, QLearningAsRun, leaning
from marlin.schedulers.sac_scalar import SacScalar
from marlin.schedulers.schemes import SCHEMES
from marlin.task import Task, forecast_inputs

WORLD = TASK.world
SITES = len(WORLD.sites)
DAY = TASK.test_days()[0]
FORECAST = TASK.forecasts(np.array([DAY, DAY + 40]))
STATE = WORLD.idle_state(2)
LEARNED = [QLearning, Ddqn, ActorCritic, SacScalar, Ippo, Mappo]
AS_RUN = [QLearningAsRun, DdqnAsRun, ActorCriticAsRun]
KINDS = LEARNED + AS_RUN


def budget(training_epochs: int, worlds: int = 8, checkpoints: int = 2) -> dict[str, Any]:
    return {
        "name": "x", "training_epochs": training_epochs, "worlds": worlds,
        "checkpoints": checkpoints, "calls_per_decision": 32,
    }  # fmt: skip


# The contract


@pytest.mark.parametrize("kind", KINDS)
def test_every_variant_plans_in_shares_and_levels_untrained(kind: Callable[[], Scheduler]) -> None:
    scheduler = kind()
    for variant in scheduler.variants():
        scheduler.reset(WORLD, 0, variant)
        observation = TASK.observation(DAY, WORLD.idle_state(1))
        plan = scheduler.plan(observation)
        assert plan.routing.shape == (1, *WORLD.class_shape, SITES)
        np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
        assert (plan.routing >= 0).all()
        assert ((plan.power >= 0) & (plan.power <= 1)).all()
        assert observation.budget.used == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_happens_later_changes_no_decision(kind: Callable[[], Scheduler]) -> None:
    """Ten epochs are planned, observed and learned from; the truth after them is another."""
    later = np.arange(len(TASK.epochs.time)) >= DAY + 10
    changed = {
        f.name: np.where(later.reshape(-1, *[1] * (value.ndim - 1)), value * 1.7, value)
        for f in fields(TASK.epochs.inputs)
        if f.name not in ("available", "ewif_l_per_kwh", "aware_m3_per_m3")
        for value in [getattr(TASK.epochs.inputs, f.name)]
    }
    epochs = replace(TASK.epochs, inputs=replace(TASK.epochs.inputs, **changed))
    forecast = forecast_inputs(TASK.run, epochs, WORLD.epochs_per_day, 0)
    plans = []
    for task in (TASK, Task(TASK.run, WORLD, epochs, forecast)):
        scheduler = kind()
        scheduler.reset(WORLD, 0)
        state = WORLD.idle_state(1)
        for epoch in range(DAY, DAY + 11):
            plan = scheduler.plan(task.observation(epoch, state))
            plans.append(plan)
            state, outcome = step(WORLD, state, plan, task.truth(np.array([epoch])))
            scheduler.observe(outcome)
    for ours, theirs in zip(plans[:11], plans[11:], strict=True):
        np.testing.assert_array_equal(ours.routing, theirs.routing)
        np.testing.assert_array_equal(ours.power, theirs.power)


@pytest.mark.parametrize("kind", KINDS)
def test_training_repeats_bit_for_bit_and_survives_a_file(
    kind: Callable[[], Scheduler], tmp_path: Path
) -> None:
    task = make_task(budget=budget(768))
    curves, weights = [], []
    for _ in range(2):
        scheduler = kind()
        scheduler.reset(task.world, 0)
        curves.append(scheduler.train(task))
        weights.append(scheduler.weights())
    assert curves[0] == curves[1]
    assert weights[0]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])
    scheduler.save(tmp_path / "policy.npz")
    restored = kind()
    restored.reset(task.world, 0)
    restored.load(tmp_path / "policy.npz")
    variant = scheduler.variants()[-1]
    days = [summary(run_day(task, s, DAY, 0, variant).outcomes) for s in (scheduler, restored)]
    assert days[0] == days[1]


@pytest.mark.parametrize("kind", LEARNED)
def test_the_curve_begins_untrained_and_ends_within_the_budget(
    kind: Callable[[], LearnedScheduler],
) -> None:
    task = make_task(budget=budget(1500, checkpoints=3))
    scheduler = kind()
    rows = scheduler.train(task)
    spent = sorted({row["training_epochs"] for row in rows})
    assert spent[0] == 0
    assert len(spent) == 4
    most = 2 * 8 * scheduler.stride  # what one more turn might have taken
    assert 1500 - most < spent[-1] <= 1500
    assert {row["variant"] for row in rows} == {name or "balanced" for name in SCHEMES}


def test_without_a_budget_nothing_is_learned() -> None:
    scheduler = SacScalar()
    rows = scheduler.train(make_task(budget=budget(0)))
    assert {row["training_epochs"] for row in rows} == {0}
    fresh = scheduler.learner(WORLD, 0).pack()
    for variant in SCHEMES:
        learned = part(scheduler.weights(), variant)
        assert learned.keys() == fresh.keys()
        for name, value in learned.items():
            np.testing.assert_array_equal(value, fresh[name])


# Actions


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.3, 1.0]))
@settings(max_examples=50, deadline=None)
def test_every_action_is_a_plan_that_serves(seed: int, scale: float) -> None:
    action = scale * np.random.default_rng(seed).uniform(-1, 1, (2, ACTION_SIZE))
    plan = decode(WORLD, action, FORECAST, STATE)
    np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
    assert (plan.routing >= 0).all()
    assert ((plan.power >= 0) & (plan.power <= 1)).all()
    assert step(WORLD, STATE, plan, FORECAST)[1].dropped.max() == 0


@given(seed=st.integers(0, 10_000), load=st.floats(0.01, 4.0), ceiling=st.floats(0.1, 0.9))
@settings(max_examples=50, deadline=None)
def test_filling_many_worlds_is_filling_each(seed: int, load: float, ceiling: float) -> None:
    rng = np.random.default_rng(seed)
    cost = np.round(rng.uniform(0, 3, (2, len(WORLD.origins), SITES)))  # with ties
    demand = load * FORECAST.arrival_rate_per_s
    work = np.einsum("boms,dms->bod", demand, load_per_request_per_s(WORLD))
    shares = fill_ranked(WORLD, cost, work, np.full(2, ceiling))
    for b in range(2):
        one = fill_by_cost(WORLD, cost[b], demand[b : b + 1], ceiling)
        np.testing.assert_allclose(shares[b], one[0, :, 0, 0], atol=1e-12)


def test_the_action_for_carbon_is_the_carbon_greedy_scheduler() -> None:
    ceiling = 2 * (0.8 - 0.3) / (WORLD.utilisation_ceiling - 0.3) - 1
    used = 2 * (0.8 - 0.3) / (MOST_USED - 0.3) - 1
    action = np.array([[-1, 1, -1, -1, ceiling, used, -1.0]])
    observation = TASK.observation(DAY, WORLD.idle_state(1))
    greedy = Greedy("carbon_greedy", "carbon", (0.8,)).plan(observation)
    ours = decode(WORLD, action, observation.forecast, observation.state)
    np.testing.assert_allclose(ours.routing, greedy.routing, atol=1e-9)
    np.testing.assert_allclose(ours.power, greedy.power, atol=1e-9)


def test_nodes_that_run_stay_on_as_asked() -> None:
    action = np.tile([-1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 0.0], (2, 1))
    half = decode(WORLD, action, FORECAST, STATE)
    assert half.power.min() == pytest.approx(0.5)
    action[:, -1] = 1.0
    np.testing.assert_allclose(decode(WORLD, action, FORECAST, STATE).power, 1.0)


def test_learners_start_around_the_greedy_order_of_their_scheme() -> None:
    weights = np.array([SCHEMES["water"], SCHEMES[""]])
    latent = start_latent(weights)
    np.testing.assert_allclose(latent[0, :4], [-0.5, -0.5, 1.5, -0.5])
    np.testing.assert_allclose(latent[1, :4], 0.0)
    best = presets()[start_logits(weights).argmax(axis=1)]
    np.testing.assert_allclose(best[0, :4], [-1, -1, 1, -1])
    np.testing.assert_allclose(best[1, :4], 1.0)


def test_features_are_of_the_order_of_one_and_found_by_name() -> None:
    seen = observe(WORLD, STATE, FORECAST)
    assert seen.shape == (2, state_size(WORLD))
    assert np.abs(seen).max() < 10
    expected = (FORECAST.carbon_g_per_kwh - 300) / 200
    np.testing.assert_allclose(of_sites(seen, CARBON), expected)
    np.testing.assert_allclose(of_sites(seen, NODES_ON), 0.5)  # everything on
    twice = replace(FORECAST, arrival_rate_per_s=2 * FORECAST.arrival_rate_per_s)
    more = observe(WORLD, STATE, twice)[:, FLEET_LOAD]
    np.testing.assert_allclose(more + 1, 2 * (seen[:, FLEET_LOAD] + 1))


# Rewards and returns


def test_rewards_compare_with_the_even_split_and_turning_away_costs() -> None:
    outcome = even_split(WORLD, FORECAST, FORECAST)
    reference = metrics_per_served(outcome)
    np.testing.assert_allclose(log_ratio_rewards(outcome, reference, 5.0), 0.0)
    halved = replace(convert(outcome, lambda a: 0.5 * a), arrived=outcome.arrived)
    gains = log_ratio_rewards(halved, reference, 5.0)
    np.testing.assert_allclose(gains, np.log(2) * np.array([[1.5, 1, 1, 1]] * 2))
    refusing = replace(halved, ttft_s=outcome.ttft_s, dropped=0.5 * outcome.arrived)
    np.testing.assert_allclose(log_ratio_rewards(refusing, reference, 5.0), -2.5, atol=1e-9)
    stalled = replace(outcome, ttft_s=1e6 * outcome.ttft_s)
    np.testing.assert_allclose(log_ratio_rewards(stalled, reference, 5.0)[:, 0], -1.5 * np.log(10))


def test_advantages_by_hand() -> None:
    """Discount and trace of a half; the second epoch is the last of its day.

    Errors: 1 + 2/2 - 1 = 1; 2 + 4/2 - 2 = 2; 3 + 8/2 - 0 = 7. The trace stops after the second,
    its bootstrap does not: 1 + 2/4 = 1.5; 2; 7.
    """
    gain = advantages(
        reward=np.array([[1.0], [2.0], [3.0]]),
        value=np.array([[1.0], [2.0], [0.0]]),
        next_value=np.array([[2.0], [4.0], [8.0]]),
        moved=np.array([[False], [True], [False]]),
        discount=0.5,
        trace=0.5,
    )
    np.testing.assert_allclose(gain[:, 0], [1.5, 2.0, 7.0])


def test_a_full_trace_gives_the_discounted_return() -> None:
    """1 + 2/2 + 4/4 + 8/8 - 3, where 8 is what the last state is worth."""
    reward = np.array([[1.0], [2.0], [4.0]])
    value = np.array([[3.0], [5.0], [7.0]])
    after = np.array([[5.0], [7.0], [8.0]])
    gain = advantages(reward, value, after, np.zeros((3, 1), bool), 0.5, 1.0)
    assert gain[0, 0] == pytest.approx(1.0)
    assert gain[2, 0] == pytest.approx(4 + 4 - 7)


def test_temporal_difference_targets_by_hand() -> None:
    np.testing.assert_allclose(td_target(np.array([1.0, -2.0]), np.array([10.0, 5.0]), 0.8), [9, 2])


def test_each_scheme_keeps_the_checkpoint_that_did_best_on_it() -> None:
    """The second is worse on TTFT and, in sum of logarithms, for the balanced scheme.

    Where it turns a percent of the requests away it is worse for all.
    """
    first, second = {"w": np.zeros(1)}, {"w": np.ones(1)}
    kept: dict[str, dict[str, np.ndarray]] = {variant: {} for variant in SCHEMES}
    best = dict.fromkeys(SCHEMES, np.inf)
    row = dict.fromkeys(OBJECTIVES, 1.0) | {"dropped_share": 0.0}
    keep_better(kept, best, first, [row] * 5)
    assert all(named is first for named in kept.values())
    other = {"ttft_s": 10.0, "carbon_kg": 0.5, "water_l": 0.5, "cost_usd": 0.5}
    keep_better(kept, best, second, [other | {"dropped_share": 0.01}] * 5)
    assert all(named is first for named in kept.values())
    keep_better(kept, best, second, [other | {"dropped_share": 0.0}] * 5)
    chosen = {variant: int(named["w"][0]) for variant, named in kept.items()}
    assert chosen == {"": 0, "ttft": 0, "carbon": 1, "water": 1, "cost": 1}
    assert best[""] == 0.0
    assert best["water"] == pytest.approx(np.log(0.5))


def test_trials_last_for_a_spell_and_the_rest_is_greedy() -> None:
    trials = Perseverance(1000, 5, 4.0, np.random.default_rng(0))
    best = np.full(1000, 7)
    assert (trials.choose(best, 0.0) == 7).all()
    for _ in range(50):
        before = trials.choose(best, 0.5)
    after = trials.choose(best, 0.5)
    assert (before != 7).mean() == pytest.approx(0.5, abs=0.05)
    tried = before != 7
    # Kept where the spell goes on (3/4), or where the same one of five is drawn again.
    assert (after[tried] == before[tried]).mean() == pytest.approx(0.75 + 0.25 * 0.1, abs=0.05)
    assert [falling(used, 0.5, 0.1) for used in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.1, 0.1]


# Practice


def practice(training_epochs: int = 4000) -> Practice:
    task = make_task(budget=budget(training_epochs))
    return Practice(task, np.random.default_rng(0), 5.0)


def test_every_simulated_epoch_is_counted_and_references_once() -> None:
    walk, visited = practice(), set()
    for turn in range(1, 120):
        visited |= set(walk.worlds.epoch.tolist())
        walk.step(np.zeros((8, ACTION_SIZE)))
        assert walk.spent == 8 * turn + len(visited)


def test_practice_stays_within_its_budget_and_on_training_days() -> None:
    walk = practice(500)
    allowed = {
        day + offset for day in walk.task.days(TRAIN) for offset in range(WORLD.epochs_per_day)
    }
    while walk.affords(1):
        assert set(walk.worlds.epoch.tolist()) <= allowed
        walk.step(np.zeros((8, ACTION_SIZE)))
    assert 500 - 16 < walk.spent <= 500
    assert walk.left == pytest.approx(1 - walk.spent / 500)


def test_a_day_ends_in_a_cut_and_the_next_begins_with_everything_on() -> None:
    walk, moved_once = practice(), False
    cold = np.tile([-1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0], (8, 1))
    for _ in range(96):
        walked = walk.step(cold)
        same = ~walked.moved
        np.testing.assert_array_equal(walked.after[same], walk.seen[same])
        if walked.moved.any():
            moved_once = True
            assert (of_sites(walk.seen[walked.moved], NODES_ON) == 0.5).all()
            assert (of_sites(walked.after[walked.moved], NODES_ON) < 0.5).any()
    assert moved_once


def test_rewards_of_practice_are_those_of_the_epoch() -> None:
    walk = practice()
    epoch, state, task = walk.worlds.epoch, walk.worlds.state, walk.task
    action = np.random.default_rng(1).uniform(-1, 1, (8, ACTION_SIZE))
    walked = walk.step(action)
    forecast, truth = task.forecasts(epoch), task.truth(epoch)
    outcome = step(WORLD, state, decode(WORLD, action, forecast, state), truth)[1]
    reference = metrics_per_served(even_split(WORLD, forecast, truth))
    expected = log_ratio_rewards(outcome, reference, 5.0)
    np.testing.assert_allclose(walked.reward, expected, rtol=1e-12)


def test_a_ring_forgets_the_oldest_and_draws_under_all_schemes() -> None:
    ring = Ring(4, 1, 1)
    for value in range(6):
        one = np.full((1, 1), float(value))
        ring.add(one, Transition(one, np.ones((1, 4)), np.full((1, 4), value), -one, np.ones(1)))
    batch = ring.draw(200, np.random.default_rng(0))
    assert set(batch.seen[:, 0]) == {2.0, 3.0, 4.0, 5.0}
    np.testing.assert_array_equal(batch.seen, batch.action)
    np.testing.assert_array_equal(batch.after, -batch.seen)
    np.testing.assert_array_equal(batch.reward[:, :1], batch.seen)
    assert {tuple(w) for w in batch.weights} == set(SCHEMES.values())


# Networks and algorithms


def test_networks_side_by_side_do_not_mix() -> None:
    nets = Mlps(3, 5, 2, seeded(0))
    rows = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    together = nets(rows)
    assert together.shape == (3, 4, 2)
    rows_of_their_own = rows.repeat(3, 1, 1)
    rows_of_their_own[0] += 1.0
    apart = nets(rows_of_their_own)
    torch.testing.assert_close(apart[1:], together[1:])
    assert not torch.allclose(apart[0], together[0])


def test_density_of_a_squashed_gaussian() -> None:
    latent = torch.tensor([[0.3, -1.2], [4.0, 0.0]], dtype=torch.float64)
    mean, log_std = torch.full((2, 2), 0.1).double(), torch.full((2, 2), -0.5).double()
    base = torch.distributions.Normal(mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(
        base, torch.distributions.TanhTransform(cache_size=1)
    )
    expected = squashed.log_prob(torch.tanh(latent)).sum(-1)
    ours = log_density(latent, mean, log_std) - log_squash(latent)
    torch.testing.assert_close(ours, expected)


def test_heads_are_mixed_by_weight() -> None:
    heads = torch.tensor([[1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0]] * 2)
    weights = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(mixed(heads, weights), torch.tensor([[3.0, 30.0], [2.5, 25.0]]))


def test_proposals_are_joined_by_the_weighted_mean() -> None:
    latent = np.random.default_rng(0).normal(size=(4, 2, ACTION_SIZE))
    weights = np.array([SCHEMES["carbon"], SCHEMES[""]])
    joint = agreed(latent, weights)
    np.testing.assert_allclose(joint[0], np.tanh(latent[1, 0]))
    np.testing.assert_allclose(joint[1], np.tanh(latent[:, 1]).mean(axis=0))


def test_advantages_are_scaled_over_the_worlds_where_an_agent_has_a_say() -> None:
    gain = torch.tensor([[1.0, 3.0, 99.0], [5.0, 5.0, 5.0]])
    say = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(
        standardised(gain, say),
        torch.tensor([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        atol=1e-5,
        rtol=0,
    )


def test_independent_agents_climb_their_own_advantage_and_a_team_the_weighted_sum() -> None:
    gain = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    own = Ippo().learner(WORLD, 0).pursued(gain, weights)
    team = Mappo().learner(WORLD, 0).pursued(gain, weights)
    torch.testing.assert_close(own[:, 0], gain[0])
    torch.testing.assert_close(team[:, 0], torch.full((4,), 1.5))


def draw_of(rows: int) -> Draw:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(rows, state_size(WORLD)))
    weights = np.tile(SCHEMES["carbon"], (rows, 1))
    action = np.zeros((rows, 1))
    return Draw(seen, weights, action, np.ones((rows, 4)), rng.normal(size=seen.shape))


def test_double_learning_chooses_with_one_network_and_values_with_the_other() -> None:
    learner = Ddqn(discount=0.5).learner(WORLD, 0)
    count = len(learner.presets)
    with torch.no_grad():
        for network in (learner.network, learner.target):
            network.weights[-1].zero_()
        liked, worth = torch.zeros(count, 4), torch.zeros(count, 4)
        liked[3, 1] = 100.0  # the network would take the fourth for carbon
        worth[3], worth[5] = 7.0, 99.0  # its copy thinks more of the sixth; 3 speak against both
        learner.network.biases[-1].copy_(liked.reshape(1, 1, -1))
        learner.target.biases[-1].copy_(worth.reshape(1, 1, -1))
    torch.testing.assert_close(learner.goals(draw_of(5)), torch.full((5, 4), 3.0))


def test_tabular_update_by_hand() -> None:
    """First visit: rate 1, the goal itself; second: rate 2^-0.7 of the way."""
    learner = QLearning(discount=0.5, rate_power=0.7).learner(WORLD, 0)
    learner.table[:] = 0.0
    learner.table[:, 7] = 2.0
    learner.update(4, 3, np.array([4.0, 8.0, 0.0, 0.0]), 7)
    np.testing.assert_allclose(learner.table[:, 4, 3], [4, 5, 9, 1, 1])
    learner.update(4, 3, np.array([8.0, 8.0, 8.0, 8.0]), 7)
    np.testing.assert_allclose(learner.table[0, 4, 3], 4 + 2**-0.7 * (9 - 4))
    assert np.count_nonzero(learner.table) == 5 * (1 + len(learner.presets))


def test_tabular_states_know_where_nodes_run() -> None:
    seen = np.zeros((3, SITE_FEATURES * SITES + 1))
    of_sites(seen, NODES_ON)[:] = [[0.5, 0.5, 0.5], [0.5, -0.5, -0.5], [-0.5, -0.5, 0.5]]
    of_sites(seen, CARBON)[:] = [-1.0, 1.0, 0.0]
    of_sites(seen, DEMAND)[:] = [0.0, 0.0, 1.0]
    assert leaning(seen).tolist() == [4, 1, 0]
    cells = QLearning().learner(WORLD, 0).states(seen)
    assert len(set(cells.tolist())) == 3


def test_soft_values_follow_the_twin_that_promises_less() -> None:
    from marlin.schedulers.learning.sac import lower

    critics = Mlps(2, 3, 4, seeded(0))
    with torch.no_grad():
        critics.weights[-1].zero_()
        critics.biases[-1].copy_(torch.tensor([[[1.0, 5.0, 0, 0]], [[2.0, 3.0, 0, 0]]]))
    rows, action = torch.zeros(2, 2), torch.zeros(2, 1)
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    values = lower(critics, rows, action, weights)
    torch.testing.assert_close(values, torch.tensor([[1.0, 5.0, 0, 0], [2.0, 3.0, 0, 0]]))


# The forms that MARLIN was compared with


@given(
    load=st.lists(st.floats(0.05, 5.0), min_size=3, max_size=6),
    room=st.floats(0.0, 0.9),
    site=st.integers(0, 2),
)
@settings(max_examples=100, deadline=None)
def test_consolidated_shares_sum_to_one(load: list[float], room: float, site: int) -> None:
    share = consolidated(site, np.array(load), np.full(len(load), room))
    assert share.sum() == pytest.approx(1.0)
    assert (share >= 0).all()


def test_overflow_goes_to_the_site_with_most_room() -> None:
    share = consolidated(1, np.array([2.0, 2.0, 2.0]), np.array([0.4, 0.8, 0.6]))
    np.testing.assert_allclose(share, np.array([0.2, 0.4, 0.3]) + 0.1 / 3)
    share = consolidated(1, np.array([1.0, 1.0, 1.0]), np.array([0.4, 0.8, 0.6]))
    np.testing.assert_allclose(share, [0.0, 0.8, 0.2])


def test_active_sites_and_migrations_are_paid_for_in_the_compared_q_learning() -> None:
    """0.1 of -(0.87 x 2/3 + 0.13 x 1/2), in the row of the state before: all three active."""
    scheduler = QLearningAsRun()
    scheduler.reset(WORLD, 0)
    scheduler.learn(Epoch(site=1, migrated=0.5, active=2 / 3, cost_usd=9.0, ttft_s=9.0))
    table = scheduler.known()["table"]
    assert table[3, 1] == pytest.approx(-0.1 * (0.87 * 2 / 3 + 0.13 * 0.5))
    assert np.count_nonzero(table) == 1


def test_the_compared_forms_pay_for_their_training_in_whole_days() -> None:
    scheduler = DdqnAsRun()
    scheduler.train(make_task(budget=budget(200)))
    assert scheduler.weights()["epochs"] == 2 * WORLD.epochs_per_day
    scheduler.train(make_task(budget=budget(50)))
    assert scheduler.weights()["epochs"] == 0


# Learning


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEARNED)
def test_it_learns(kind: Callable[[], LearnedScheduler]) -> None:
    """On a day unseen each variant is at least near the greedy scheduler of its objective."""
    task = make_task(budget=budget(12_288, worlds=16, checkpoints=3))
    scheduler = kind()
    scheduler.train(task)
    for variant, objective in zip(("carbon", "water", "cost"), OBJECTIVES[1:], strict=True):
        greedy = Greedy(f"{variant}_greedy", variant)
        ours, theirs = (
            summary(run_day(task, s, DAY, 0, v).outcomes)
            for s, v in ((scheduler, variant), (greedy, ""))
        )
        assert ours[objective] < 1.2 * theirs[objective], (variant, ours, theirs)
        assert ours["dropped"] < 1e-3 * ours["requests"]
