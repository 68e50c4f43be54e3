"""The judge: samples of a day that agree with the whole of it, and say how far they may be off."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from marlin.config import ScoringConfig
from marlin.fleet.contract import Plan, joined, row
from marlin.fleet.power_down import sized_plan
from marlin.fleet.replay import replay
from marlin.fleet.simulator import step
from marlin.fleet.world import build_epochs, build_world, chosen_profiles
from marlin.judge import Judge, Played, difference_estimate, ratio_estimate, stratified
from marlin.serving.replay.requests import requests

RUN = synthetic.run_config()
SCENARIO = synthetic.scenario()
WORLD = build_world(SCENARIO, RUN, synthetic.profiles())
EPOCHS = build_epochs(SCENARIO, RUN, WORLD)
PROFILES = chosen_profiles(RUN.fleet, RUN.serving, synthetic.profiles())
FIRST, COUNT = 40, 4


SERVICES = synthetic.services(WORLD, np.random.default_rng(0))


@functools.cache
def judge(**scoring) -> Judge:
    """One judge a setting, which remembers the days it has scored."""
    settings = {"epochs": 96, "share": 1.0, "at_least": 1, "warm_up_s": 60.0} | scoring
    settings = ScoringConfig(name="test", judge="replay", **settings)
    return Judge(WORLD, PROFILES, 256, SERVICES, settings)


def play(target: float = 0.6, shut: int | None = None) -> Played:
    """Epochs with an even split; from the epoch `shut` on the first site gets nothing."""
    state = WORLD.idle_state(1)
    plans, states, outcomes = [], [], []
    epochs = np.arange(FIRST, FIRST + COUNT)
    for n, epoch in enumerate(epochs):
        now = row(EPOCHS.inputs, np.array([epoch]))
        share = np.ones((1, *WORLD.class_shape, 3))
        share[..., 0] = 0.0 if shut is not None and n >= shut else 1.0
        share /= share.sum(axis=-1, keepdims=True)
        plan = sized_plan(WORLD, share, now.arrival_rate_per_s, target)
        plans.append(plan)
        states.append(state)
        state, outcome = step(WORLD, state, plan, now)
        outcomes.append(outcome)
    return Played(joined(plans), joined(states), row(EPOCHS.inputs, epochs), outcomes)


DAY = play()


def stream(day: Played, seed: int):
    """Requests of the whole day, drawn independently of the judge's: Poisson at every class."""
    rng = np.random.default_rng(seed)
    parts = []
    for n, rates in enumerate(day.inputs.arrival_rate_per_s):
        for o, m, s in itertools.product(*(range(size) for size in WORLD.class_shape)):
            count = rng.poisson(rates[o, m, s] * WORLD.epoch_s)
            tokens = SERVICES.tokens[s][rng.integers(20_000, size=count)]
            arrival = (n + rng.random(count)) * WORLD.epoch_s
            same = np.ones((count, 3), int) * [o, m, s]
            parts.append(np.column_stack([arrival, tokens, same]))
    table = np.concatenate(parts)
    return requests(*table[np.argsort(table[:, 0], kind="stable")].T)


def test_all_epochs_and_replicas_are_what_replay_of_the_whole_day_finds() -> None:
    whole = replay(WORLD, PROFILES, 256, DAY.plans, DAY.inputs, [stream(DAY, 1)]).summary
    score = judge().score(DAY, FIRST)
    assert score["energy_kwh"] == pytest.approx(whole["energy_kwh"], rel=0.02)
    assert score["carbon_kg"] == pytest.approx(whole["carbon_kg"], rel=0.02)
    assert score["ttft_s"] == pytest.approx(whole["ttft_mean_s"], rel=0.05)
    assert score["ttft_p95_s"] == pytest.approx(whole["ttft_p95_s"], rel=0.08)
    assert score["tpot_p50_s"] == pytest.approx(whole["tpot_p50_s"], rel=0.03)
    assert score["replay_lost_share"] == whole["dropped"] == 0
    errors = [score[name] for name in score if name.endswith("_se")]
    assert errors == [0.0] * 6  # all epochs were replayed


def test_a_sample_of_epochs_is_right_within_its_standard_error() -> None:
    whole, part = judge().score(DAY, FIRST), judge(epochs=2).score(DAY, FIRST)
    for name in ("ttft_s", "carbon_kg", "water_l", "cost_usd", "energy_kwh"):
        assert 0 < part[f"{name}_se"] < 0.1 * part[name]
        assert abs(part[name] - whole[name]) < 5 * part[f"{name}_se"]


def test_a_sample_of_replicas_stands_for_all() -> None:
    whole, part = judge().score(DAY, FIRST), judge(share=0.25, at_least=4).score(DAY, FIRST)
    assert part["energy_kwh"] == pytest.approx(whole["energy_kwh"], rel=0.02)
    # The median lies between what the two kinds of GPU take: a small shift of requests moves it.
    assert part["tpot_p50_s"] == pytest.approx(whole["tpot_p50_s"], rel=0.1)
    # Few replicas queue more than many, never less.
    assert 0.99 * whole["ttft_s"] < part["ttft_s"] < 1.15 * whole["ttft_s"]


def test_equal_days_have_equal_scores_and_another_day_has_not() -> None:
    first = judge(epochs=2).score(DAY, FIRST)
    again = judge(epochs=2, share=1).score(DAY, FIRST)
    assert first == again
    assert judge(epochs=2).score(DAY, FIRST + 96) != first


def test_nodes_that_boot_in_a_sampled_epoch_make_its_requests_wait() -> None:
    levels = DAY.plans.power.copy()
    levels[1] *= 0.3  # asleep for one epoch, then woken
    day = replace(DAY, plans=Plan(DAY.plans.routing, levels))
    calm, woken = judge().score(DAY, FIRST), judge().score(day, FIRST)
    assert woken["ttft_p99_s"] > 2 * calm["ttft_p99_s"]


def test_what_waits_at_the_start_of_an_epoch_is_served_first() -> None:
    backlog = DAY.states.backlog.copy()
    backlog[:, :, 1, :] = 10_000.0  # requests of the large model at every site
    day = replace(DAY, states=replace(DAY.states, backlog=backlog))
    calm, full = judge(epochs=2).score(DAY, FIRST), judge(epochs=2).score(day, FIRST)
    assert full["ttft_p99_s"] > 2 * calm["ttft_p99_s"]


def test_a_site_without_requests_does_not_count() -> None:
    score = judge(epochs=2).score(play(shut=0), FIRST)
    assert np.isfinite(list(score.values())).all()


def test_estimates_by_hand() -> None:
    judged, known = np.array([11.0, 33.0]), np.array([10.0, 30.0])
    value, error = difference_estimate(100.0, judged, known, 8)
    assert value == 116.0
    assert error == pytest.approx(8 * np.sqrt(2.0 / 2 * (1 - 2 / 8)))
    assert difference_estimate(40.0, judged, known, 2) == (44.0, 0.0)
    value, error = ratio_estimate(100.0, judged, known, 8)
    assert value == pytest.approx(110.0)
    assert error == pytest.approx(0.0, abs=1e-9)  # the ratio is the same in both epochs
    _, error = ratio_estimate(100.0, np.array([13.0, 31.0]), known, 8)
    assert error == pytest.approx(8 * np.sqrt(8.0 / 2 * (1 - 2 / 8)))


@given(count=st.integers(1, 200), some=st.integers(2, 300), seed=st.integers(0, 2**31))
def test_chosen_epochs_are_spread_over_the_day(count: int, some: int, seed: int) -> None:
    chosen = stratified(count, some, seed)
    assert len(chosen) == min(count, some)
    assert (np.diff(chosen) > 0).all()
    edges = np.arange(len(chosen) + 1) * count / len(chosen)
    assert (chosen > edges[:-1] - 1).all()
    assert (chosen < edges[1:]).all()


def test_a_small_pool_that_boots_leaves_the_others_as_busy_as_they_are() -> None:
    """Some A100 nodes come on beside H100 nodes that serve: their share must not fall on these."""
    levels = np.zeros_like(DAY.plans.power)
    levels[..., 1] = 1.0
    levels[2:, :, 0] = 1 / 6
    inputs = replace(DAY.inputs, arrival_rate_per_s=0.8 * DAY.inputs.arrival_rate_per_s)
    state, states, outcomes = WORLD.idle_state(1), [], []
    for n in range(COUNT):
        states.append(state)
        here = slice(n, n + 1)
        plan = Plan(DAY.plans.routing[here], levels[here])
        state, outcome = step(WORLD, state, plan, row(inputs, here))
        outcomes.append(outcome)
    day = Played(Plan(DAY.plans.routing, levels), joined(states), inputs, outcomes)
    whole, part = judge().score(day, FIRST), judge(share=0.1, at_least=3).score(day, FIRST)
    assert part["ttft_s"] == pytest.approx(whole["ttft_s"], rel=0.25)
    assert part["ttft_p99_s"] < 2 * whole["ttft_p99_s"]
