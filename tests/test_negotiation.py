"""Votes, veto and capital against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin.games.negotiation import (
    Rules,
    negotiate,
    refine,
    starting_capital,
    updated_capital,
    veto,
    vote,
)

GOALS = torch.tensor([[0.8, 0.0], [-0.8, 0.0], [0.0, 0.8], [0.0, -0.8]])
EVEN = torch.full((1, 4), 0.25)


def critics(actions: torch.Tensor) -> torch.Tensor:
    """Every agent values an action by its squared distance to the agent's own goal."""
    return -((actions[:, None] - GOALS[None, :, None]) ** 2).sum(-1) - 0.01


def proposals() -> torch.Tensor:
    return GOALS[None].clone()


def test_a_lone_voter_gets_its_own_favourite() -> None:
    power = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    # Agent 0 scores its own goal 1, the opposite 0, the others (2.56-1.28)/2.56 = 0.5, squared.
    expected = (GOALS[0] + 0.25 * GOALS[2] + 0.25 * GOALS[3]) / 1.5
    torch.testing.assert_close(vote(proposals(), critics, power)[0], expected)


def test_equal_voters_with_opposite_goals_meet_in_the_middle() -> None:
    plan = negotiate(proposals(), critics, starting_capital(EVEN, Rules()), EVEN, Rules())
    torch.testing.assert_close(plan[0], torch.zeros(2), atol=1e-6, rtol=0)


def test_refinement_climbs_the_welfare_of_those_with_power() -> None:
    power = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    start = torch.zeros(1, 2)
    # Slope of agent 2's value at the origin is 2 x 0.8 along its axis.
    one_step = refine(start, critics, power, Rules(refinement_steps=1))
    torch.testing.assert_close(one_step[0], torch.tensor([0.0, 0.05 * 1.6]))


def test_veto_pulls_towards_a_rich_agent_that_would_lose_and_spares_a_poor_one() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    plan = torch.zeros(1, 2)
    rich = torch.tensor([[200.0, 100.0, 100.0, 100.0]])
    moved = veto(plan, proposals(), critics, rich, weights, Rules())
    # Loss 0.64 / 0.01 is far above a quarter: pulled by the most that is allowed, one half.
    torch.testing.assert_close(moved[0], 0.5 * GOALS[0])
    poor = torch.tensor([[149.0, 100.0, 100.0, 100.0]])
    assert torch.equal(veto(plan, proposals(), critics, poor, weights, Rules()), plan)
    unheard = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert torch.equal(veto(plan, proposals(), critics, rich, unheard, Rules()), plan)


def test_capital_starts_shared_by_weight_and_pays_the_well_served() -> None:
    torch.testing.assert_close(starting_capital(EVEN, Rules()), torch.full((1, 4), 100.0))
    capital = torch.full((1, 4), 100.0)
    offered = torch.tensor([[[1.0, 3.0, 3.0, 3.0]] * 4])
    executed = torch.tensor([[1.0, 2.0, 3.0, 9.0]])
    after = updated_capital(capital, executed, offered, Rules())
    torch.testing.assert_close(after, torch.tensor([[115.0, 102.5, 90.0, 90.0]]))
    broke = updated_capital(torch.full((1, 4), 1.0), executed + 9, offered, Rules())
    torch.testing.assert_close(broke, torch.full((1, 4), 10.0))


@given(seed=st.integers(0, 10_000), scheme=st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_the_agreed_plan_is_in_bounds_and_does_not_depend_on_the_order_of_agents(
    seed: int, scheme: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    goals = 2 * torch.rand(4, 3, generator=generator) - 1

    def judge(order: torch.Tensor):
        return lambda actions: -((actions[:, None] - goals[order][None, :, None]) ** 2).sum(-1)

    weights = torch.cat([torch.full((1, 4), 0.25), torch.eye(4)])[scheme : scheme + 1]
    capital = 100 + 40 * torch.rand(1, 4, generator=generator)  # below what a veto needs
    same = torch.arange(4)
    plan = negotiate(goals[None], judge(same), capital, weights, Rules())
    assert (plan.abs() <= 1.0).all()
    order = torch.randperm(4, generator=generator)
    permuted = negotiate(
        goals[order][None], judge(order), capital[:, order], weights[:, order], Rules()
    )
    torch.testing.assert_close(permuted, plan, atol=1e-5, rtol=1e-4)


def test_worlds_of_a_batch_do_not_touch_each_other() -> None:
    both = torch.cat([proposals(), 0.5 * proposals()])
    weights = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])
    capital = torch.tensor([[100.0] * 4, [250.0, 50.0, 50.0, 50.0]])
    together = negotiate(both, critics, capital, weights, Rules())
    for b in range(2):
        alone = slice(b, b + 1)
        single = negotiate(both[alone], critics, capital[alone], weights[alone], Rules())
        torch.testing.assert_close(single[0], together[b])
    assert together[1, 0] > 0.2
    assert together[1, 1].abs() == pytest.approx(0.0, abs=1e-6)
