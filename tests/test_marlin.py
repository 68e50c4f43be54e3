"""MARLIN: what agents see and say, what they learn from, and that they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedulers import TASK, make_task

from marlin.evaluate import run_day, summary
from marlin.fleet.contract import OBJECTIVES, Outcome, convert
from marlin.fleet.simulator import step
from marlin.fleet.world import VALIDATION
from marlin.schedulers.base import Budget
from marlin.schedulers.learning.features import observe, state_size
from marlin.schedulers.learning.rewards import even_split
from marlin.schedulers.marlin import Marlin
from marlin.schedulers.marlin.agents import AGENTS
from marlin.schedulers.marlin.codec import action_size, decode, heuristic
from marlin.schedulers.marlin.play import rewards
from marlin.schedulers.marlin.replay import DualReplay, Replay
from marlin.schedulers.marlin.training import make_learners, pack, unpack

WORLD = TASK.world
DAY = TASK.test_days()[0]
FORECAST = TASK.forecasts(np.array([DAY, DAY + 40]))
STATE = TASK.world.idle_state(2)
SMALL: dict[str, Any] = {
    "actor_width": 32, "critic_width": 32, "within_capacity": 2000,
}  # fmt: skip


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=50, deadline=None)
def test_every_action_is_a_plan(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    action = scale * np.sign(rng.uniform(-1, 1, (2, action_size(WORLD))))
    plan = decode(WORLD, action, FORECAST)
    np.testing.assert_allclose(plan.routing.sum(axis=-1), 1.0)
    assert (plan.routing >= 0).all()
    assert ((plan.power >= 0) & (plan.power <= 1)).all()
    assert step(WORLD, STATE, plan, FORECAST)[1].dropped.max() == 0


def test_numbers_of_an_action_mean_what_the_page_says() -> None:
    sites, models = len(WORLD.sites), len(WORLD.models)
    action = np.zeros((2, action_size(WORLD)))
    action[:, -1] = -1.0  # distance does not count
    light = replace(FORECAST, arrival_rate_per_s=0.3 * FORECAST.arrival_rate_per_s)
    plan = decode(WORLD, action, light)
    np.testing.assert_allclose(plan.routing, 1 / sites)
    action[:, 0] = 0.25  # the first model's taste for the first site, times 4
    small, large = decode(WORLD, action, light).routing[0, 0, :, 0]
    assert small[0] / small[1] == pytest.approx(np.e)
    np.testing.assert_allclose(large, 1 / sites)
    fuller = np.zeros((2, action_size(WORLD)))
    fuller[:, -1] = -1.0
    fuller[:, models * sites : -1] = 1.0
    assert (decode(WORLD, fuller, light).power < plan.power + 1e-6).all()


def test_state_and_rules_of_thumb_are_finite_and_of_the_order_of_one() -> None:
    seen = observe(WORLD, STATE, FORECAST)
    assert seen.shape == (2, state_size(WORLD))
    assert np.abs(seen).max() < 10
    assert heuristic(WORLD, FORECAST).shape == (2, AGENTS, action_size(WORLD))
    assert np.abs(heuristic(WORLD, FORECAST)).max() <= 1


def test_rewards_compare_with_the_even_split_and_turning_away_earns_nothing() -> None:
    reference = even_split(WORLD, FORECAST, FORECAST)
    np.testing.assert_allclose(rewards(reference, reference, 12.0), 0.0)
    halved = convert(reference, lambda a: 0.5 * a)
    halved = replace(halved, arrived=reference.arrived)
    log2 = float(np.log(2.0))
    expected = [[12 * log2, 8 * log2, 8 * log2, 8 * log2]] * 2
    np.testing.assert_allclose(rewards(halved, reference, 12.0), expected)
    refusing: Outcome = replace(halved, ttft_s=reference.ttft_s, dropped=0.5 * reference.arrived)
    assert (rewards(refusing, reference, 12.0) <= -6 + 1e-4).all()


def test_replay_draws_in_proportion_to_priority_and_forgets_the_oldest() -> None:
    ring = Replay(4, 1, 1, AGENTS)
    for value in range(6):
        row = np.full((1, 1), float(value))
        ring.add(row, row, np.repeat(row, AGENTS, axis=1), row)
    assert sorted(ring.state[:, 0].tolist()) == [2.0, 3.0, 4.0, 5.0]
    ring.priority[:] = [1.0, 0.0, 0.0, 2.0]
    drawn = ring.draw(20_000, np.random.default_rng(0))
    share = np.bincount(drawn, minlength=4) / len(drawn)
    heavy = 2**0.6 / (1 + 2**0.6)
    np.testing.assert_allclose(share, [1 - heavy, 0, 0, heavy], atol=0.015)


def test_dual_replay_mixes_and_gives_errors_back_to_where_rows_came_from() -> None:
    replay = DualReplay(1, 1, AGENTS, across=10, within=10)
    one, reward = np.ones((10, 1)), np.ones((10, AGENTS))
    replay.across.add(one, one, reward, one)
    replay.within.add(-one, one, reward, one)
    batch, drawn = replay.draw(10, 0.7, np.random.default_rng(0))
    assert (batch.state > 0).sum() == 7
    replay.reprioritise(drawn, torch.arange(10.0))
    assert replay.across.priority[drawn[0][1]].max() == pytest.approx(6.001)
    assert replay.within.priority[drawn[1][1]].max() == pytest.approx(9.001)


def test_training_repeats_bit_for_bit_and_policies_survive_a_file(tmp_path: Path) -> None:
    weights, curves = [], []
    for _ in range(2):
        scheduler = Marlin(**SMALL)
        scheduler.reset(TASK.world, 0)
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


@pytest.mark.parametrize(("calls", "used"), [(64, 21), (21, 21), (16, 13), (5, 5)])
def test_decisions_stay_within_the_budget(calls: int, used: int) -> None:
    """The even split and the four proposals always; four tries an agent where there is room."""
    scheduler = Marlin(**SMALL)
    scheduler.reset(TASK.world, 0)
    observation = TASK.observation(DAY, TASK.world.idle_state(1))
    observation = replace(observation, budget=Budget(calls))
    scheduler.plan(observation)
    assert observation.budget.used == used


def test_pack_and_unpack_are_inverse() -> None:
    first, second = (make_learners(Marlin(**SMALL), TASK.world, seed) for seed in (0, 1))
    unpack(second, pack(first))
    for name, value in pack(first).items():
        np.testing.assert_array_equal(pack(second)[name], value)


@pytest.mark.slow
def test_it_learns() -> None:
    """Three variants end far better on their own objective than they began, on unseen days.

    The untrained agents are already close to the best TTFT: they prefer near sites.
    """
    task = make_task(
        budget={
            "name": "x",
            "training_epochs": 12_288,
            "worlds": 16,
            "checkpoints": 1,
            "calls_per_decision": 32,
        }
    )
    assert task.days(VALIDATION)
    scheduler = Marlin()
    scheduler.reset(task.world, 0)
    rows = {(r["variant"], r["training_epochs"] > 0): r for r in scheduler.train(task)}
    for variant, objective in zip(("carbon", "water", "cost"), OBJECTIVES[1:], strict=True):
        before, after = rows[variant, False][objective], rows[variant, True][objective]
        assert after < 0.85 * before, (variant, before, after)
