"""Votes, veto and capital against numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin.games.negotiation import (
    Rules,
    dominant,
    negotiate,
    refine,
    scored,
    starting_capital,
    updated_capital,
    veto,
    vote,
)

GOALS = torch.tensor([[0.8, 0.0], [-0.8, 0.0], [0.0, 0.8], [0.0, -0.8]])
EVEN = torch.full((1, 4), 0.25)
RULES = Rules()


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
    # To the fourth power: the others count an eighth together.
    sharp = vote(proposals(), critics, power, replace(RULES, score_exponent=4.0))
    torch.testing.assert_close(sharp[0], GOALS[0] / 1.125)


def test_one_bad_proposal_makes_the_others_look_alike() -> None:
    """Scores are between the best and the worst: what the worst does decides the rest."""

    def judge(worst: float) -> torch.Tensor:
        values = torch.tensor([0.0, -1.0, -2.0, worst])
        return scored(proposals(), lambda _: values.expand(1, 4, 4), RULES)[0, 0]

    torch.testing.assert_close(judge(-4.0), torch.tensor([1.0, 0.5625, 0.25, 0.0]))
    torch.testing.assert_close(judge(-100.0), torch.tensor([1.0, 0.9801, 0.9604, 0.0]))


def test_equal_voters_with_opposite_goals_meet_in_the_middle() -> None:
    capital = torch.full((1, 4), 100.0)
    plan = negotiate(proposals(), critics, capital, EVEN, RULES).plan
    torch.testing.assert_close(plan[0], torch.zeros(2), atol=1e-6, rtol=0)


def test_refinement_climbs_the_welfare_of_those_with_power_and_is_projected() -> None:
    power = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    start = torch.zeros(1, 2)
    # Slope of agent 2's value at the origin is 2 x 0.8 along its axis.
    once = replace(RULES, refinement_steps=1)
    torch.testing.assert_close(refine(start, critics, power, once)[0], torch.tensor([0.0, 0.08]))
    held = refine(start, critics, power, once, lambda action: action.clamp(max=0.05))
    torch.testing.assert_close(held[0], torch.tensor([0.0, 0.05]))


def test_without_phase_two_the_strongest_agent_decides() -> None:
    power = torch.tensor([[0.2, 0.5, 0.5, 0.1]])
    torch.testing.assert_close(dominant(proposals(), power)[0], GOALS[1])
    capital = torch.tensor([[90.0, 100.0, 130.0, 80.0]])
    bargain = negotiate(proposals(), critics, capital, EVEN, replace(RULES, phase2=False))
    torch.testing.assert_close(bargain.plan[0], GOALS[2])


def test_veto_pulls_towards_a_rich_agent_that_would_lose_and_spares_a_poor_one() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    plan = torch.zeros(1, 2)
    rich = torch.tensor([[200.0, 100.0, 100.0, 100.0]])
    moved, pulls = veto(plan, proposals(), critics, rich, weights, RULES)
    # Loss 0.64 / 0.01 is far above a quarter: pulled by the most that is allowed, one half.
    torch.testing.assert_close(moved[0], 0.5 * GOALS[0])
    torch.testing.assert_close(pulls[0], torch.tensor([0.5, 0.0, 0.0, 0.0]))
    poor = torch.tensor([[149.0, 100.0, 100.0, 100.0]])
    assert torch.equal(veto(plan, proposals(), critics, poor, weights, RULES)[0], plan)
    unheard = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert torch.equal(veto(plan, proposals(), critics, rich, unheard, RULES)[0], plan)


def test_a_veto_pulls_by_loss_and_capital_and_not_at_all_for_a_small_loss() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]])

    def pulled(loss: float, capital: float) -> float:
        def judge(actions: torch.Tensor) -> torch.Tensor:
            own = -10.0 * (1.0 + loss * (actions[..., 0] - 0.8).abs() / 0.8)
            return own[:, None].expand(1, 4, -1)

        rich = torch.tensor([[capital, 100.0, 100.0, 100.0]])
        return float(veto(torch.zeros(1, 2), proposals(), judge, rich, weights, RULES)[1][0, 0])

    assert pulled(0.4, 200.0) == pytest.approx(0.4 * 200 / 500)
    assert pulled(0.4, 150.0) == pytest.approx(0.4 * 150 / 500)
    assert pulled(0.9, 400.0) == pytest.approx(0.5)
    assert pulled(0.24, 400.0) == 0.0


def test_veto_and_capital_can_be_switched_off() -> None:
    capital = torch.tensor([[400.0, 100.0, 100.0, 100.0]])
    with_veto = negotiate(proposals(), critics, capital, EVEN, RULES)
    without = negotiate(proposals(), critics, capital, EVEN, replace(RULES, veto=False))
    assert with_veto.pulls[0, 0] > 0.0
    assert torch.equal(without.plan, with_veto.refined)
    kept = updated_capital(
        capital, torch.rand(1, 5, 4), torch.zeros(1, 4), replace(RULES, capital=False)
    )
    assert torch.equal(kept, capital)


def test_capital_starts_shared_by_the_weights_of_all_schemes() -> None:
    roster = torch.cat([EVEN, torch.eye(4)])
    torch.testing.assert_close(starting_capital(roster, RULES), torch.full((4,), 100.0))
    alone = starting_capital(torch.eye(4)[:1], RULES)
    torch.testing.assert_close(alone, torch.tensor([250.0, 50.0, 50.0, 50.0]))


def test_capital_pays_agents_that_fare_well_under_all_schemes() -> None:
    capital = torch.full((1, 4), 100.0)
    # Over five schemes: mean 2 of 1..3 earns half; mean 1.4 of 1..3 earns 0.8; all alike earn one.
    metrics = torch.tensor([[[1.0, 1.0, 7.0, 3.0], [2.0, 1.0, 7.0, 3.0], [2.0, 1.0, 7.0, 1.0],
                             [2.0, 1.0, 7.0, 3.0], [3.0, 3.0, 7.0, 3.0]]])  # fmt: skip
    envy = torch.tensor([[0.0, 0.4, 0.0, 9.0]])
    after = updated_capital(capital, metrics, envy, RULES)
    by_hand = [
        90 + 25 * 0.5,
        90 + 25 * (0.8 + 0.5 * 0.4),
        90 + 25 * 1.0,
        90 + 25 * (0.2 + 0.5 * 1.0),
    ]
    torch.testing.assert_close(after, torch.tensor([by_hand]))
    broke = updated_capital(torch.zeros(1, 4), metrics[:, :, 3:].expand(1, 5, 4), 0 * envy, RULES)
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
    plan = negotiate(goals[None], judge(same), capital, weights, RULES).plan
    assert (plan.abs() <= 1.0).all()
    order = torch.randperm(4, generator=generator)
    permuted = negotiate(
        goals[order][None], judge(order), capital[:, order], weights[:, order], RULES
    ).plan
    torch.testing.assert_close(permuted, plan, atol=1e-5, rtol=1e-4)


def test_worlds_of_a_batch_do_not_touch_each_other() -> None:
    both = torch.cat([proposals(), 0.5 * proposals()])
    weights = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])
    capital = torch.tensor([[100.0] * 4, [250.0, 50.0, 50.0, 50.0]])
    together = negotiate(both, critics, capital, weights, RULES).plan
    for b in range(2):
        alone = slice(b, b + 1)
        single = negotiate(both[alone], critics, capital[alone], weights[alone], RULES).plan
        torch.testing.assert_close(single[0], together[b])
    assert together[1, 0] > 0.2
    assert together[1, 1].abs() == pytest.approx(0.0, abs=1e-6)
