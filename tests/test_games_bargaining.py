"""Bargaining against numbers worked by hand, axioms, and other solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linprog, minimize

from marlin.errors import UserError
from marlin.games import bargaining
from marlin.games.bargaining import egalitarian, kalai_smorodinsky, nash, utilitarian

EVEN = np.full(4, 0.25)
SOLUTIONS = (nash, kalai_smorodinsky, egalitarian, utilitarian)
SEEDS = st.integers(0, 2**31)


def welfare(gains: np.ndarray, powers: np.ndarray) -> float:
    """The Nash objective of gains [J] under powers that sum to one."""
    return float(powers @ np.log(gains))


def drawn(seed: int, candidates: int = 8, agents: int = 4) -> np.ndarray:
    """Random gains [K, J] that some mixture makes positive for all.

    Agents' scales differ a millionfold, and conflict is stronger or weaker.
    """
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=(candidates, agents)) + rng.uniform(-0.5, 0.5)
    mixture = rng.dirichlet(np.full(candidates, 0.3))
    reached = mixture @ gains
    gains += rng.uniform(0.05, 1.0, agents) - np.minimum(reached, 0.0)
    return gains * 10.0 ** rng.uniform(-3, 3, agents)


def some_powers(seed: int, agents: int = 4) -> np.ndarray:
    shares = np.random.default_rng(seed).dirichlet(np.full(agents, 2.0)) + 0.01
    return shares / shares.sum()


@pytest.mark.parametrize(
    ("solution", "reached"),
    [
        # Between (2, 0) and (1.5, 1) the product (2 - u/2) u still grows where u ends, at 1.
        (nash, [1.5, 1.0]),
        # Ideals (2, 1): the ray (2 t, t) meets 2 - t/2 at t = 0.8.
        (kalai_smorodinsky, [1.6, 0.8]),
        (utilitarian, [1.5, 1.0]),
    ],
)
def test_three_candidates_by_hand(solution, reached) -> None:
    found = solution(np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]]), np.array([0.5, 0.5]))
    assert found.gains == pytest.approx(reached, abs=1e-6)
    assert bool(found.agrees)


def test_a_cake_is_cut_by_power() -> None:
    cake = np.array([[1.0, 0.0], [0.0, 4.0]])
    powers = np.array([0.3, 0.7])
    # max 0.3 log a + 0.7 log 4(1 - a): a = 0.3.
    assert nash(cake, powers).gains == pytest.approx([0.3, 2.8], abs=1e-6)
    # Gains in the ratio 0.3 to 0.7 of the ideals (1, 4): the same here.
    assert kalai_smorodinsky(cake, powers).gains == pytest.approx([0.3, 2.8], abs=1e-6)
    # a : 4(1 - a) = 0.3 : 0.7, so a = 12 / 19.
    assert egalitarian(cake, powers).gains == pytest.approx([12 / 19, 28 / 19], abs=1e-6)
    assert utilitarian(cake, powers).gains == pytest.approx([0.0, 4.0])


def test_ideals_leave_no_other_agent_worse_off() -> None:
    gains = np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0], [10.0, -1.0]])
    found = kalai_smorodinsky(gains, np.ones(2))
    # The first agent's ideal is half-way from (1.5, 1) to (10, -1): 5.75, not 10. On that line
    # 1.5 + 4.25 (1 - t) = 5.75 t at t = 0.575.
    assert found.gains == pytest.approx([5.75 * 0.575, 0.575], abs=1e-6)


def test_without_agreement_the_largest_least_gain() -> None:
    found = nash(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.ones(2))
    assert not bool(found.agrees)
    assert found.mixture == pytest.approx([0.5, 0.5], abs=1e-6)
    # All lose everywhere: losses relative to the worst are (1, 0.5) and (0.25, 1), least at
    # 1 - 0.75 b = 0.5 + 0.5 b, b = 0.4.
    found = nash(np.array([[-4.0, -5.0], [-1.0, -10.0]]), np.ones(2))
    assert not bool(found.agrees)
    assert found.gains == pytest.approx([-2.8, -7.0], abs=1e-6)
    for solution in SOLUTIONS:
        assert not bool(solution(np.zeros((3, 4)), EVEN).agrees)


def test_agents_without_power_do_not_count() -> None:
    gains = drawn(3)
    without = np.concatenate([gains, -100.0 * np.ones((8, 1))], axis=1)
    for solution in SOLUTIONS:
        alone, both = solution(gains, EVEN), solution(without, np.array([1.0, 1.0, 1.0, 1.0, 0.0]))
        np.testing.assert_allclose(both.mixture, alone.mixture, atol=1e-8)
        assert bool(both.agrees)
        assert both.gains[-1] == pytest.approx(-100.0)


@pytest.mark.parametrize("solution", SOLUTIONS)
def test_torch_and_batches_give_what_single_rows_give(solution) -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(size=(3, 5, 12, 4)) + rng.uniform(-1.5, 0.5, (3, 5, 1, 1))
    powers = rng.dirichlet(np.ones(4), (3, 5))
    batch = solution(gains, powers)
    assert 0 < batch.agrees.sum() < 15
    tensor = solution(torch.as_tensor(gains), torch.as_tensor(powers))
    np.testing.assert_allclose(tensor.gains.numpy(), batch.gains, atol=1e-7)
    np.testing.assert_array_equal(tensor.agrees.numpy(), batch.agrees)
    for at in np.ndindex(3, 5):
        alone = solution(gains[at], powers[at])
        np.testing.assert_allclose(batch.gains[at], alone.gains, rtol=0, atol=1e-12)
        assert batch.agrees[at] == alone.agrees
    small = solution(torch.as_tensor(gains, dtype=torch.float32), torch.as_tensor(powers[0, 0]))
    assert small.mixture.dtype == small.gains.dtype == torch.float32
    assert small.mixture.shape == (3, 5, 12)
    assert solution(gains[:0], powers[0, 0]).gains.shape == (0, 5, 4)


@pytest.mark.parametrize("solution", SOLUTIONS)
def test_the_work_itself_may_be_done_in_torch(solution, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    gains = rng.normal(size=(40, 12, 4)) + rng.uniform(-1.5, 0.5, (40, 1, 1))
    before = solution(gains, EVEN)
    monkeypatch.setattr(bargaining, "_at_hand", torch.Tensor.detach)  # as on an accelerator
    after = solution(torch.as_tensor(gains), torch.as_tensor(EVEN))
    np.testing.assert_allclose(after.gains.numpy(), before.gains, atol=1e-7)
    np.testing.assert_array_equal(after.agrees.numpy(), before.agrees)


def test_slopes_of_the_bargained_welfare_are_those_of_finite_differences() -> None:
    gains = torch.as_tensor(drawn(5), dtype=torch.float64).requires_grad_()
    (torch.log(nash(gains, torch.as_tensor(EVEN)).gains).mean()).backward()
    assert gains.grad is not None
    start = gains.detach().numpy()
    for at in ((0, 0), (3, 1), (7, 3)):
        nudge = np.zeros_like(start)
        nudge[at] = 1e-3 * abs(start[at])
        ahead, behind = (welfare(nash(start + sign * nudge, EVEN).gains, EVEN) for sign in (1, -1))
        slope = (ahead - behind) / (2 * nudge[at])
        assert gains.grad[at].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("gains", "powers", "message"),
    [
        (np.ones(3), EVEN, "candidates by agents"),
        (np.ones((0, 4)), EVEN, "candidates by agents"),
        (np.ones((2, 3)), EVEN, "one power for each agent"),
        (np.ones((2, 4)), np.ones((5, 4)), "one power for each agent"),
        (np.ones((2, 4)), -EVEN, "none negative"),
        (np.ones((2, 4)), np.zeros(4), "one of them positive"),
        (np.ones((2, 4)), np.array([1.0, np.nan, 1.0, 1.0]), "finite"),
        (np.array([[1.0, np.inf, 1.0, 1.0]]), EVEN, "NaN or infinity"),
    ],
)
def test_mistakes_are_named(gains, powers, message) -> None:
    for solution in SOLUTIONS:
        with pytest.raises(UserError, match=message):
            solution(gains, powers)


@given(seed=SEEDS, candidates=st.integers(1, 24), agents=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_nash_is_optimal_and_all_gain(seed, candidates, agents) -> None:
    gains, powers = drawn(seed, candidates, agents), some_powers(seed, agents)
    found = nash(gains, powers)
    assert bool(found.agrees)
    assert (found.mixture >= 0).all()
    assert found.mixture.sum() == pytest.approx(1.0)
    # What Nash's solution promises: of the best that it has seen an agent gets its power's part.
    harmless = (gains >= 0).all(axis=1)
    assert (found.gains >= (powers * gains[harmless]).max(axis=0, initial=0.0) * (1 - 1e-5)).all()
    assert (found.gains > 0).all()
    # The objective is concave: no mixture is better by more than its steepest slope here.
    assert (gains @ (powers / found.gains)).max() - 1.0 < 1e-5


TALL = hnp.arrays(float, (6, 4), elements=st.floats(-1e4, 1e4).map(lambda x: round(x, 4)))


@given(gains=TALL, small=hnp.arrays(float, (6, 4), elements=st.integers(-2, 2).map(float)))
@settings(max_examples=100, deadline=None)
def test_any_gains_give_a_mixture_and_agreement_is_what_a_linear_program_says(gains, small) -> None:
    for table in (gains, small):
        size = np.where(table.max(axis=0) > 0, table.max(axis=0), abs(table).max(axis=0))
        least = furthest(table / np.where(size > 0, size, 1.0), np.ones(4))
        for solution in SOLUTIONS:
            found = solution(table, EVEN)
            assert (found.mixture >= 0).all()
            assert found.mixture.sum() == pytest.approx(1.0)
            if abs(least) > 1e-6:
                assert bool(found.agrees) == (least > 0)
            if not found.agrees and solution is not utilitarian:
                reached = found.gains / np.where(size > 0, size, 1.0)
                assert reached.min() == pytest.approx(least, abs=1e-5)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_no_mixture_is_better_for_all(seed) -> None:
    gains, powers = drawn(seed), some_powers(seed)
    size = gains.max(axis=0)
    for solution in SOLUTIONS:
        reached = solution(gains, powers).gains / size
        # Most that all can have on top: zero is weak Pareto optimality.
        spare = furthest(gains / size - reached, np.ones(4))
        assert spare < 1e-6
    for solution in (nash, utilitarian):
        found = solution(gains, powers).gains / size
        # Most that the sum can grow while none loses: zero is Pareto optimality.
        best = linprog(
            -(gains / size).sum(axis=1), A_ub=-(gains / size).T, b_ub=-found + 1e-9,
            A_eq=np.ones((1, 8)), b_eq=[1.0],
        )  # fmt: skip
        assert -best.fun - found.sum() < 1e-4


def furthest(gains: np.ndarray, direction: np.ndarray) -> float:
    """The largest t with mixture @ gains >= t direction, by another solver."""
    count = len(gains)
    done = linprog(
        np.r_[np.zeros(count), -1.0], A_ub=np.c_[-gains.T, direction], b_ub=0.0 * direction,
        A_eq=np.r_[np.ones(count), 0.0][None], b_eq=[1.0],
        bounds=[(0, None)] * count + [(None, None)],
    )  # fmt: skip
    assert done.status == 0, done.message
    return -done.fun


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_floors_are_as_high_as_linear_programs_say(seed) -> None:
    gains, powers = drawn(seed), some_powers(seed)
    count, agents = gains.shape
    reached = egalitarian(gains, powers).gains
    assert (reached / powers).min() == pytest.approx(furthest(gains, powers), rel=1e-6)
    ideals = np.array([
        -linprog(-gains[:, j], A_ub=-gains.T, b_ub=np.zeros(agents), A_eq=np.ones((1, count)),
                 b_eq=[1.0]).fun
        for j in range(agents)
    ])  # fmt: skip
    shares = kalai_smorodinsky(gains, powers).gains / (powers * ideals)
    assert shares.min() == pytest.approx(furthest(gains, powers * ideals), rel=1e-5)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_units_do_not_matter_where_gains_are_not_compared(seed) -> None:
    gains, powers = drawn(seed), some_powers(seed)
    units = 10.0 ** np.random.default_rng(seed).uniform(-4, 4, 4)
    for solution in (nash, kalai_smorodinsky):
        before, after = solution(gains, powers).gains, solution(gains * units, powers).gains
        np.testing.assert_allclose(after / units, before, rtol=1e-4, atol=1e-6 * gains.max())
    # Those that compare gains follow a change of everyone's unit alone.
    for solution in (egalitarian, utilitarian):
        before, after = solution(gains, powers).gains, solution(gains * 1e3, powers).gains
        np.testing.assert_allclose(after / 1e3, before, rtol=1e-5, atol=1e-6 * gains.max())


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_names_of_agents_and_candidates_do_not_matter(seed) -> None:
    rng = np.random.default_rng(seed)
    gains, powers = drawn(seed), some_powers(seed)
    agents, candidates = rng.permutation(4), rng.permutation(8)
    size = gains.max(axis=0)
    for solution in SOLUTIONS:
        before = solution(gains, powers).gains / size
        after = solution(gains[candidates][:, agents], powers[agents]).gains / size[agents]
        np.testing.assert_allclose(after, before[agents], atol=1e-4)
    # Agents in the same place get the same: every order of one gain vector is a candidate.
    alike = np.stack([np.roll(gains[0] / size, shift) for shift in range(4)])
    for solution in (nash, kalai_smorodinsky, egalitarian):
        reached = solution(alike + 1.0, np.ones(4)).gains
        np.testing.assert_allclose(reached, reached.mean(), atol=1e-6)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_nash_and_the_floor_ignore_alternatives_that_were_not_taken(seed) -> None:
    rng = np.random.default_rng(seed)
    gains, powers = drawn(seed), some_powers(seed)
    keep = rng.choice(8, rng.integers(0, 8), replace=False)
    for solution in (nash, egalitarian):
        taken = solution(gains, powers).gains
        fewer = solution(np.concatenate([taken[None], gains[keep]]), powers).gains
        if solution is nash:
            np.testing.assert_allclose(fewer, taken, rtol=1e-3)
        else:
            assert (fewer / powers).min() == pytest.approx((taken / powers).min(), rel=1e-6)


def test_the_kalai_smorodinsky_point_does_not() -> None:
    wide = np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]])
    taken = kalai_smorodinsky(wide, np.ones(2)).gains  # (1.6, 0.8), as above
    # Without (2, 0) the ideals are (1.6, 1), so that t solves 1.5 + 0.5 (1 - t) = 1.6 t.
    fewer = kalai_smorodinsky(np.stack([taken, *wide[1:]]), np.ones(2)).gains
    assert fewer == pytest.approx([1.6 * 2.0 / 2.1, 2.0 / 2.1], abs=1e-6)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_more_power_is_no_loss(seed) -> None:
    gains, powers = drawn(seed), some_powers(seed)
    agent = seed % 4
    stronger = powers * np.where(np.arange(4) == agent, 1.5, 1.0)
    before, after = nash(gains, powers).gains, nash(gains, stronger).gains
    assert after[agent] >= before[agent] * (1.0 - 1e-4)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_more_candidates_raise_the_floor_of_all(seed) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.uniform(0.0, 1.0, (6, 4))
    more = np.concatenate([gains, gains.max(axis=0) * rng.uniform(0.0, 1.0, (4, 4))])  # same ideals
    for solution, unit in ((egalitarian, np.ones(4)), (kalai_smorodinsky, gains.max(axis=0))):
        before, after = (solution(table, EVEN).gains / unit for table in (gains, more))
        assert after.min() >= before.min() - 1e-6


def by_slsqp(gains: np.ndarray, powers: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Nash bargaining by a general solver, from a mixture under which all gain: gains [J]."""
    relative = gains / (start @ gains)

    def loss(mixture: np.ndarray) -> tuple[float, np.ndarray]:
        share = np.maximum(mixture @ relative, 1e-6)
        return -float(powers @ np.log(share)), -relative @ (powers / share)

    keep_gaining = {
        "type": "ineq", "fun": lambda m: m @ relative - 1e-3, "jac": lambda m: relative.T,
    }  # fmt: skip
    sum_to_one = {"type": "eq", "fun": lambda m: m.sum() - 1.0, "jac": np.ones_like}
    done = minimize(
        loss, start, jac=True, method="SLSQP", bounds=[(0.0, 1.0)] * len(gains),
        constraints=[sum_to_one, keep_gaining], options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    return (done.x / done.x.sum()) @ gains


@pytest.mark.parametrize("candidates", [4, 16, 48])
def test_slsqp_finds_the_same(candidates) -> None:
    for seed in range(20):
        gains, powers = drawn(seed, candidates), some_powers(seed)
        ours = welfare(nash(gains, powers).gains, powers)
        theirs = welfare(by_slsqp(gains, powers, egalitarian(gains, powers).mixture), powers)
        assert theirs < ours + 1e-7
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("candidates", [4, 16, 48])
def test_cvxpy_finds_the_same(candidates) -> None:
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is not installed: pip install -e '.[dev]'")
    for seed in range(8):
        gains, powers = drawn(seed, candidates), some_powers(seed)
        mixture = cvxpy.Variable(candidates, nonneg=True)
        size = gains.max(axis=0)
        objective = cvxpy.sum(cvxpy.multiply(powers, cvxpy.log(mixture @ (gains / size))))
        problem = cvxpy.Problem(cvxpy.Maximize(objective), [cvxpy.sum(mixture) == 1])
        theirs = problem.solve(solver=cvxpy.CLARABEL) + powers @ np.log(size)
        ours = welfare(nash(gains, powers).gains, powers)
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_near_zero_sum_conflict_is_settled() -> None:
    rng = np.random.default_rng(0)
    conflict = rng.normal(size=(200, 16, 1)) * np.array([1.0, -1.0, 1.0, -1.0])
    gains = conflict + 1e-2 * rng.normal(size=(200, 16, 4))
    found = nash(gains, EVEN)
    assert found.agrees.mean() > 0.9
    for k in np.flatnonzero(found.agrees):
        ours = welfare(found.gains[k], EVEN)
        theirs = welfare(by_slsqp(gains[k], EVEN, found.mixture[k]), EVEN)
        assert theirs < ours + 1e-6


def test_losses_beyond_reason_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    gains = 1.0 - np.exp(rng.normal(0.0, 8.0, (400, 16, 4)))  # down to minus 1e14
    for solution in SOLUTIONS:
        found = solution(gains, EVEN)
        assert np.isfinite(found.mixture).all()
        assert (found.gains[found.agrees] > 0).all() or solution is utilitarian


def test_few_steps_give_a_mixture_all_the_same() -> None:
    found = nash(drawn(1), EVEN, iterations=2)
    assert found.mixture.sum() == pytest.approx(1.0)
    assert (found.mixture > 0).all()
    assert bargaining.ITERATIONS > 2
