"""Environments: the standard checkers, and what those leave out."""

from __future__ import annotations

import pickle
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test, parallel_seed_test

import marlin.envs
from marlin.envs.core import AGENTS, REFERENCE_TARGET, make_core, objectives
from marlin.envs.parallel import FleetParallelEnv, FleetVectorRewardEnv
from marlin.envs.rules import RULES, rule
from marlin.envs.single import FleetEnv
from marlin.errors import UserError
from marlin.fleet.contract import convert, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.world import build_epochs, build_world
from marlin.task import Task, forecast_inputs

ROOT = Path(__file__).parents[1]
OTHERS = ROOT / ".venv-conformance" / "bin" / "python"


def made_up_task() -> Task:
    """The made-up world with demand that grows from day to day."""
    run = synthetic.run_config()
    scenario = synthetic.scenario()
    growth = 1.0 + 0.01 * (np.arange(len(scenario["time"])) // 96)
    scenario["arrival_rate_per_s"] *= growth[:, None, None, None]
    world = build_world(scenario, run, synthetic.profiles())
    epochs = build_epochs(scenario, run, world)
    return Task(run, world, epochs, forecast_inputs(run, epochs, 96, 0))


TASK = made_up_task()
CORE = make_core(TASK)


def episode(env: FleetParallelEnv, seed: int, action_seed: int = 0) -> list[Any]:
    """Everything that an episode shows, reset included; proposals are random."""
    rng = np.random.default_rng(action_seed)
    seen = [env.reset(seed)]
    while env.agents:
        proposals = {a: rng.uniform(-1, 1, CORE.action_size) for a in env.agents}
        seen.append(env.step(proposals))
    return seen


def flat(value: Any) -> np.ndarray:
    """All numbers of nested tuples and dicts."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list | tuple):
        return np.concatenate([flat(part) for part in value]) if len(value) else np.zeros(0)
    return np.asarray(value, dtype=float).ravel()


@pytest.mark.parametrize("kind", [FleetParallelEnv, FleetVectorRewardEnv])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pettingzoo_is_content(kind: type[FleetParallelEnv]) -> None:
    parallel_api_test(kind(CORE), num_cycles=200)
    parallel_seed_test(lambda: kind(CORE))


def test_gymnasium_is_content() -> None:
    check_env(FleetEnv(CORE), skip_render_check=True)


@pytest.mark.skipif(
    not OTHERS.is_file(), reason="no .venv-conformance: tests/conformance/run.sh makes it"
)
def test_stable_baselines_and_momaland_are_content() -> None:
    script = ROOT / "tests" / "conformance" / "others.py"
    done = subprocess.run([str(OTHERS), str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RULES)
def test_an_episode_keeps_to_its_spaces_and_is_cut_off_by_the_clock_alone(name: str) -> None:
    env = FleetParallelEnv(CORE, name)
    assert env.observation_space("ttft") is env.observation_space("ttft")
    shown = episode(env, seed=1)
    assert len(shown) == 1 + CORE.world.epochs_per_day
    for observations, rewards, terminations, _, infos in shown[1:]:
        assert set(observations) == set(rewards) == set(infos) == set(AGENTS)
        for agent in AGENTS:
            assert env.observation_space(agent).contains(observations[agent])
            assert np.isfinite(rewards[agent])
            assert not terminations[agent]
            vector = infos[agent]["objectives"]
            own = -vector[AGENTS.index(agent)] / CORE.reference[AGENTS.index(agent)]
            assert rewards[agent] == pytest.approx(own)
    assert [step[3]["ttft"] for step in shown[1:]] == [False] * 95 + [True]
    assert env.action_space("cost").contains(env.action_space("cost").sample())
    with pytest.raises(UserError, match="call reset"):
        env.step({})


def test_seeds_decide_whole_episodes_and_reset_restores() -> None:
    env = FleetParallelEnv(CORE)
    first = flat(episode(env, seed=3))
    np.testing.assert_array_equal(first, flat(episode(env, seed=3)))
    np.testing.assert_array_equal(first, flat(episode(FleetParallelEnv(CORE), seed=3)))
    starts = {env.reset(seed)[0]["ttft"].tobytes() for seed in range(12)}
    assert len(starts) > 1
    env.reset(3)
    days = set()
    for _ in range(12):  # without a seed the generator goes on
        env.reset()
        days.add(env.episode.first)
    assert len(days) > 1


def test_the_order_of_actions_does_not_matter_and_pickles_go_on_alike() -> None:
    env = FleetParallelEnv(CORE, "vote")
    env.reset(5)
    rng = np.random.default_rng(0)
    proposals = {a: rng.uniform(-1, 1, CORE.action_size) for a in AGENTS}
    twin = pickle.loads(pickle.dumps(env))
    backwards = dict(reversed(proposals.items()))
    for _ in range(3):
        np.testing.assert_array_equal(flat(env.step(proposals)), flat(twin.step(backwards)))
    assert env.rng.random() == twin.rng.random()


def test_vector_rewards_are_the_agents_own_arrays() -> None:
    env = FleetVectorRewardEnv(CORE)
    env.reset(0)
    rewards = env.step({a: np.zeros(CORE.action_size) for a in AGENTS})[1]
    assert env.reward_space("ttft").contains(rewards["ttft"])
    rewards["ttft"] += 1.0
    np.testing.assert_array_equal(rewards["carbon"], rewards["cost"])
    assert (rewards["ttft"] != rewards["carbon"]).all()


def test_one_controller_weighs_what_the_four_agents_get() -> None:
    weights = (1.0, 0.0, 0.5, 0.25)
    one, four = FleetEnv(CORE, weights), FleetParallelEnv(CORE)
    one.reset(seed=2)
    four.reset(2)
    four.episode.first = one.episode.first
    action = np.random.default_rng(0).uniform(-1, 1, CORE.action_size)
    reward = one.step(action)[1]
    rewards = four.step(dict.fromkeys(AGENTS, action))[1]
    assert reward == pytest.approx(sum(w * rewards[a] for w, a in zip(weights, AGENTS)))  # noqa: B905


def test_a_row_of_the_batched_core_is_a_single_run_in_numpy_and_torch() -> None:
    rng = np.random.default_rng(0)
    epochs = rng.choice(CORE.days, 4) + rng.integers(0, 90, 4)
    actions = rng.uniform(-1, 1, (2, 4, CORE.action_size))
    state, single = CORE.start(4), [CORE.start(1) for _ in range(4)]
    tensor = CORE.to_torch(torch.float64)
    state_t = tensor.start(4)
    for t in range(2):
        seen = CORE.observe(state, epochs + t)
        state, outcome = CORE.step(state, actions[t], epochs + t)
        state_t, outcome_t = tensor.step(
            state_t, torch.as_tensor(actions[t]), torch.as_tensor(epochs + t)
        )
        theirs = objectives(outcome_t).numpy()
        np.testing.assert_allclose(theirs, objectives(outcome), rtol=1e-9)
        moved = outcome.arrived - outcome.served - outcome.dropped
        assert (outcome.energy_kwh > 0).all()
        for b in range(4):
            at = epochs[b : b + 1] + t
            np.testing.assert_allclose(CORE.observe(single[b], at)[0], seen[b], atol=1e-12)
            single[b], alone = CORE.step(single[b], actions[t, b : b + 1], at)
            np.testing.assert_allclose(objectives(alone)[0], objectives(outcome)[b], rtol=1e-10)
        if t == 0:
            np.testing.assert_allclose(outcome.waiting, moved, atol=1e-6)
    np.testing.assert_allclose(
        tensor.observe(state_t, torch.as_tensor(epochs)).numpy(),
        CORE.observe(state, epochs),
        atol=1e-9,
    )


@given(seed=st.integers(0, 2**31), reach=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_epochs_conserve_requests_and_observations_keep_to_their_space(seed, reach) -> None:
    rng = np.random.default_rng(seed)
    epochs = rng.choice(CORE.days, 3) + rng.integers(0, 90, 3)
    state = CORE.start(3)
    space = FleetParallelEnv(CORE).observation_space("ttft")
    for t in range(3):
        before = state.backlog.sum(axis=(1, 2, 3))
        actions = reach * rng.uniform(-1, 1, (3, CORE.action_size))
        state, outcome = CORE.step(state, actions, epochs + t)
        kept = outcome.served + outcome.dropped + outcome.waiting
        np.testing.assert_allclose(before + outcome.arrived, kept, rtol=1e-9)
        assert (outcome.energy_kwh >= 0).all()
        for seen in CORE.observe(state, epochs + t + 1).astype(np.float32):
            assert space.contains(seen)


def test_an_observation_tells_which_models_a_site_holds() -> None:
    epoch, start = np.array([CORE.days[0]]), CORE.start(1)
    swapped = replace(start, loaded=start.loaded[..., ::-1])
    sites = len(CORE.world.sites)
    small, large = (slice(k * sites, (k + 1) * sites) for k in (7, 8))
    one, other = (CORE.observe(state, epoch)[0] for state in (start, swapped))
    np.testing.assert_array_equal(one[small], other[large])
    np.testing.assert_allclose(one[small] + 0.5, CORE.world.constants.usual_share[:, 0])
    rest = np.delete(np.arange(CORE.observation_size), np.r_[small, large])
    np.testing.assert_array_equal(one[rest], other[rest])


def test_the_core_is_differentiable_in_actions() -> None:
    core = CORE.to_torch()
    actions = torch.zeros((2, core.action_size), requires_grad=True)
    epochs = torch.tensor([CORE.days[0] + 40, CORE.days[0] + 50])
    _, outcome = core.step(core.start(2), actions, epochs)
    (slope,) = torch.autograd.grad(core.rewards(outcome).sum(), actions)
    assert torch.isfinite(slope).all()
    assert (slope.abs().sum(dim=0) > 0).any()


def test_mean_and_vote_weigh_proposals() -> None:
    proposals = np.array([[-1.0], [1.0], [1.0], [1.0]])

    def values(actions: np.ndarray) -> np.ndarray:
        return np.concatenate([actions, actions, actions, -0.1 * actions], axis=1).T

    assert rule("mean", np.zeros(1))(proposals, values) == pytest.approx([0.5])
    # Scores: one for the first proposal, from the last voter; three for each of the others.
    voted = rule("vote", np.zeros(1))(proposals, values)
    assert voted == pytest.approx([(-1.0 + 3 * 3.0) / 10])


def test_bargaining_splits_blends_or_picks() -> None:
    nash = rule("nash", np.zeros(2))
    towards = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # Two agents gain by the first number, two by the second: each half counts alike.
    pairs = nash(towards, lambda actions: actions[:, [0, 0, 1, 1]].T)
    assert pairs == pytest.approx([0.5, 0.5], abs=1e-6)
    # The last agent loses whenever another gains: no agreement, so the even split.
    signs = np.array([[1.0], [1.0], [1.0], [-1.0]])
    assert nash(towards, lambda actions: signs * actions.sum(axis=1)) == pytest.approx([0.0, 0.0])
    # One proposal is good for all and any blend of proposals for none.
    proposals = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])

    def cliff(actions: np.ndarray) -> np.ndarray:
        return np.where((actions == 1.0).all(axis=1), 1.0, -abs(actions).sum(axis=1)) * np.ones(
            (4, 1)
        )

    assert nash(proposals, cliff) == pytest.approx([1.0, 1.0])


def test_bargained_epochs_are_no_worse_on_the_forecast_than_the_even_split() -> None:
    env = FleetParallelEnv(CORE, "nash")
    env.reset(seed=4)
    rng, moved = np.random.default_rng(0), 0
    for reach in (0.05, 0.2, 1.0) * 4:
        proposals = np.clip(
            CORE.even_split + reach * rng.uniform(-1, 1, (4, CORE.action_size)), -1, 1
        )
        chosen = env.rule(proposals, env.episode.values)
        both = env.episode.values(np.stack([CORE.even_split, chosen]))
        assert (both[:, 1] >= both[:, 0] - 1e-12).all()
        moved += not np.array_equal(chosen, CORE.even_split)
        env.step(dict(zip(AGENTS, proposals, strict=True)))
    assert moved > 0


def test_the_even_split_as_an_action_is_the_reference_plan() -> None:
    epochs = np.array(CORE.days[:2]) + 40
    plan = CORE.plan(np.stack([CORE.even_split] * 2), epochs)
    sites = len(CORE.world.sites)
    np.testing.assert_allclose(plan.routing, 1.0 / sites, rtol=1e-12)
    known = row(CORE.forecast, epochs)
    same = sized_plan(
        CORE.world, plan.routing, known.arrival_rate_per_s, REFERENCE_TARGET, known.available
    )
    np.testing.assert_allclose(plan.power, same.power, rtol=1e-9)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="rule dice is unknown: choose one of mean, vote, nash"):
        FleetParallelEnv(CORE, "dice")
    with pytest.raises(UserError, match="four numbers"):
        FleetEnv(CORE, (1.0, 2.0))


def test_the_example_of_the_docs_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "environments.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 15
    composed = []
    # The real fleet takes a minute to calibrate the first time.
    monkeypatch.setattr("marlin.envs.load_run", lambda run: composed.append(run) or TASK)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert (composed[0].scenario.name, composed[0].fleet.name) == ("fortnight", "core12")
    assert scope["env"].agents == []
    assert (scope["total"] > 0).all()
    with pytest.raises(UserError, match="split weekend is unknown"):
        marlin.envs.single_env(split="weekend")


def test_inputs_of_a_core_are_those_of_the_task() -> None:
    tensor = CORE.to_torch(torch.float64)
    epochs = np.array([700, 900])
    theirs = convert(row(tensor.truth, torch.as_tensor(epochs)), lambda a: a.numpy())
    np.testing.assert_array_equal(theirs.pue, row(CORE.truth, epochs).pue)
