"""Deviations in games whose equilibria are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin.errors import UserError
from marlin.games.equilibrium import (
    best_response_gain,
    cost_table,
    exploitability,
    pure_equilibria,
)

SIZES = (2, 2, 2, 2)
COIN = [np.full(2, 0.5)] * 4


def pure(*actions: int) -> list[np.ndarray]:
    return [np.eye(2)[action] for action in actions]


def commons(profile: tuple[int, ...]) -> list[float]:
    """Saving costs 2; whoever wastes (1) costs each of the four 1: a prisoners' dilemma."""
    return [sum(profile) + (0.0 if own else 2.0) for own in profile]


def meeting(profile: tuple[int, ...]) -> list[float]:
    """All pay 1 unless all choose the same."""
    return [float(len(set(profile)) > 1)] * 4


def pennies(profile: tuple[int, ...]) -> list[float]:
    """The first wants to match the second, who wants to differ; two look on."""
    same = float(profile[0] == profile[1])
    return [1.0 - same, same, 0.0, 0.0]


def test_in_a_dilemma_waste_is_the_equilibrium_and_saving_is_better_for_all() -> None:
    costs = cost_table(commons, SIZES)
    assert costs.shape == (2, 2, 2, 2, 4)
    assert np.argwhere(pure_equilibria(costs)).tolist() == [[1, 1, 1, 1]]
    # Saving costs 2 each, waste 4 each; one who leaves the savers pays 1 instead of 2.
    assert costs[0, 0, 0, 0].tolist() == [2.0] * 4
    assert costs[1, 1, 1, 1].tolist() == [4.0] * 4
    agreed = exploitability(costs, pure(0, 0, 0, 0))
    assert agreed.gain.tolist() == [1.0] * 4
    assert agreed.nash_conv == 4.0
    assert exploitability(costs, pure(1, 1, 1, 1)).nash_conv == 0.0
    # Wasting saves 1 whatever others do: half a chance of it leaves half of that.
    assert exploitability(costs, COIN).gain.tolist() == [0.5] * 4


def test_meetings_are_equilibria_and_so_is_a_split_that_no_one_can_mend_alone() -> None:
    costs = cost_table(meeting, SIZES)
    stable = {tuple(at) for at in np.argwhere(pure_equilibria(costs)).tolist()}
    halves = {p for p in itertools.product((0, 1), repeat=4) if sum(p) == 2}
    assert stable == halves | {(0, 0, 0, 0), (1, 1, 1, 1)}
    # Only the one who is apart gains by coming over.
    assert exploitability(costs, pure(0, 1, 0, 0)).gain.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert exploitability(costs, COIN).nash_conv == pytest.approx(0.0)


def test_pennies_have_an_equilibrium_in_chances_alone() -> None:
    costs = cost_table(pennies, SIZES)
    assert not pure_equilibria(costs).any()
    assert exploitability(costs, COIN).nash_conv == pytest.approx(0.0)
    # At 0.8 against a coin nothing is lost; the other gains 0.8 - 0.5 by differing from it.
    leaning = exploitability(costs, [np.array([0.8, 0.2]), *COIN[1:]])
    assert leaning.gain == pytest.approx([0.0, 0.3, 0.0, 0.0])


@given(seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_gains_are_those_of_trying_every_action(seed) -> None:
    rng = np.random.default_rng(seed)
    sizes = tuple(rng.integers(1, 4, 4))
    costs = rng.normal(size=(*sizes, 4))
    strategies = [rng.dirichlet(np.ones(size)) for size in sizes]

    def expected(profile: list[np.ndarray], agent: int) -> float:
        return float(np.einsum("abcd,a,b,c,d", costs[..., agent], *profile))

    found = exploitability(costs, strategies)
    for agent, size in enumerate(sizes):
        replies = [
            expected([*strategies[:agent], np.eye(size)[k], *strategies[agent + 1 :]], agent)
            for k in range(size)
        ]
        by_hand = expected(strategies, agent) - min(replies)
        assert found.gain[agent] == pytest.approx(by_hand, abs=1e-12)
    assert found.nash_conv == pytest.approx(found.gain.sum())
    tensor = exploitability(torch.as_tensor(costs), [torch.as_tensor(s) for s in strategies])
    np.testing.assert_allclose(tensor.gain.numpy(), found.gain, atol=1e-12)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_the_least_potential_is_an_equilibrium(seed) -> None:
    rng = np.random.default_rng(seed)
    potential = rng.normal(size=SIZES)
    # What others do may add anything to an agent's cost: it cannot change it.
    others = [rng.normal(size=[1 if j == agent else 2 for j in range(4)]) for agent in range(4)]
    costs = np.stack([potential + extra for extra in others], axis=-1)
    best = tuple(int(at) for at in np.unravel_index(int(potential.argmin()), SIZES))
    assert exploitability(costs, pure(*best)).nash_conv == pytest.approx(0.0, abs=1e-12)
    assert pure_equilibria(costs)[best]


def test_gains_of_other_reports_by_hand() -> None:
    agreed = np.array([10.0, -4.0, 0.0, 0.0])
    deviations = np.full((4, 2, 4), 1.0)  # what others would pay does not matter
    deviations[0, :, 0] = 8.0, 12.0  # saves 2 of 10
    deviations[1, :, 1] = -5.0, -7.0  # a negative price: saves 3 of 4
    deviations[2, :, 2] = 0.0, 1.0
    deviations[3, :, 3] = -1.0, 1.0
    gain = best_response_gain(agreed, deviations)
    assert gain.tolist() == [0.2, 0.75, 0.0, np.inf]
    batch = best_response_gain(
        torch.as_tensor(agreed).expand(3, 4), torch.as_tensor(deviations).expand(3, 4, 2, 4)
    )
    assert batch.tolist() == [gain.tolist()] * 3
    # Reports that only make things worse leave the honest one.
    assert best_response_gain(agreed[:1], np.full((1, 3, 1), 11.0)).tolist() == [0.0]


def test_mistakes_are_named() -> None:
    costs = cost_table(meeting, SIZES)
    with pytest.raises(UserError, match=r"strategies of \[2, 2\] actions need \(2, 2, 2\)"):
        exploitability(costs, COIN[:2])
    for wrong in (np.zeros((4, 2, 3)), np.zeros((4, 0, 4)), np.zeros((2, 4, 2, 4)), np.zeros(4)):
        with pytest.raises(UserError, match="at least one report"):
            best_response_gain(np.ones(4), wrong)
