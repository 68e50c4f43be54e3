from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from marlin.analysis.statistics import (
    attainable_share,
    bootstrap_interquartile_means,
    estimate,
    gap_closed,
    hypervolume,
    interquartile_mean,
    paired_ratio,
    probability_of_improvement,
    reduction_percent,
)
from marlin.errors import UserError

positive = st.floats(0.01, 1e3)
matrices = hnp.arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=positive)


def test_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    # Eight values: two dropped at each end, mean of 3, 4, 5, 6.
    assert interquartile_mean([1, 2, 3, 4, 5, 6, 7, 800]) == 4.5
    # Five values: one dropped at each end, mean of 2, 3, 10.
    assert interquartile_mean([-50, 2, 3, 10, 99]) == 5.0
    # Three values: none dropped.
    assert interquartile_mean([1, 2, 6]) == 3.0
    assert interquartile_mean(np.array([[1, 2, 6], [4, 4, 4]])).tolist() == [3.0, 4.0]


def test_interquartile_mean_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no scores"):
        interquartile_mean([])


@given(matrices, st.floats(-100, 100), positive)
def test_interquartile_mean_lies_inside_and_moves_with_the_scores(
    scores: np.ndarray, shift: float, scale: float
) -> None:
    flat = scores.ravel()
    value = interquartile_mean(flat)
    assert flat.min() - 1e-9 <= value <= flat.max() + 1e-9
    assert interquartile_mean(flat[::-1]) == value
    moved = interquartile_mean(scale * flat + shift)
    assert moved == pytest.approx(scale * value + shift, rel=1e-9, abs=1e-6)


@given(st.lists(matrices, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_interval_holds_the_point_and_stays_within_the_scores(strata: list[np.ndarray]) -> None:
    result = estimate(strata, resamples=100)
    flat = np.concatenate([stratum.ravel() for stratum in strata])
    assert flat.min() - 1e-9 <= result.low <= result.point <= result.high <= flat.max() + 1e-9


def test_seeds_are_resampled_within_scenarios_and_keep_their_days() -> None:
    # Seeds agree within each scenario: however they are drawn, nothing changes.
    agreeing = [np.tile([1.0, 3.0], (4, 1)), np.tile([10.0, 30.0], (4, 1))]
    assert np.ptp(bootstrap_interquartile_means(agreeing)) == 0.0
    # Two seeds of four equal days: a resample holds both seeds or one of them twice. Drawing
    # days one by one would give other means as well.
    apart = [np.array([[1.0] * 4, [3.0] * 4])]
    assert set(bootstrap_interquartile_means(apart).tolist()) == {1.0, 2.0, 3.0}


def test_bootstrap_is_repeatable_and_narrows_with_seeds() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(5, 1, (5, 4)), rng.normal(5, 1, (80, 4))
    assert np.array_equal(
        bootstrap_interquartile_means([few]), bootstrap_interquartile_means([few])
    )
    wide, narrow = estimate([few]), estimate([many])
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        result = estimate([rng.normal(3.0, 1.0, (20, 1))], resamples=400)
        hits += result.low <= 3.0 <= result.high
    assert 0.88 <= hits / 200 <= 0.99


def test_paired_ratio_and_reduction_by_hand() -> None:
    scores = [np.array([[8.0, 30.0], [6.0, 20.0]])]
    baseline = [np.array([[10.0, 40.0]])]
    (ratio,) = paired_ratio(scores, baseline)
    assert ratio.tolist() == [[0.8, 0.75], [0.6, 0.5]]
    # Four cells: one dropped at each end, mean of 0.75 and 0.6.
    result = reduction_percent(scores, baseline)
    assert result.point == pytest.approx(32.5)
    assert result.low <= result.point <= result.high
    # Seed 0 twice gives a mean ratio of 0.775, seed 1 twice one of 0.55.
    assert result.low == pytest.approx(22.5)
    assert result.high == pytest.approx(45.0)


@given(matrices, positive)
def test_reduction_does_not_depend_on_the_unit(scores: np.ndarray, unit: float) -> None:
    rng = np.random.default_rng(0)
    baseline = rng.uniform(1, 2, scores.shape)
    here = reduction_percent([scores], [baseline], resamples=20)
    there = reduction_percent([unit * scores], [unit * baseline], resamples=20)
    assert there.point == pytest.approx(here.point, rel=1e-9, abs=1e-6)
    same = reduction_percent([scores], [scores], resamples=20)
    assert (same.point, same.low, same.high) == (0.0, 0.0, 0.0)


def test_what_cannot_be_paired_is_the_users_error() -> None:
    with pytest.raises(UserError, match="same seeds and test days"):
        paired_ratio([np.ones((3, 2))], [np.ones((2, 2))])
    with pytest.raises(UserError, match="same seeds and test days"):
        paired_ratio([np.ones((3, 2))], [np.ones((3, 1))])
    with pytest.raises(UserError, match="zero or negative"):
        paired_ratio([np.ones((1, 2))], [np.array([[1.0, 0.0]])])
    with pytest.raises(UserError, match="same test days"):
        probability_of_improvement([np.ones((1, 2))], [np.ones((1, 3))])


def test_probability_of_improvement_by_hand() -> None:
    # Pairs (1,2) (1,3) (3,2) (3,3): won, won, lost, tied.
    own, other = [np.array([[1.0], [3.0]])], [np.array([[2.0], [3.0]])]
    assert probability_of_improvement(own, other).point == pytest.approx(2.5 / 4)


@given(matrices)
@settings(deadline=None)
def test_probabilities_of_both_sides_add_to_one(own: np.ndarray) -> None:
    other = np.random.default_rng(0).choice(own.ravel(), (3, own.shape[1]))
    there = probability_of_improvement([own], [other], resamples=50)
    back = probability_of_improvement([other], [own], resamples=50)
    assert there.point + back.point == pytest.approx(1.0)
    assert 0.0 <= there.low <= there.point <= there.high <= 1.0


def test_hypervolume_by_hand() -> None:
    # Round robin alone: a box of side 1 in one of side 2.
    assert hypervolume([1.0, 1.0, 1.0, 1.0]) == pytest.approx(1 / 16)
    # Two points in the plane: areas 1.5 x 1 and 1 x 1.5 that share 1 x 1, of 4.
    assert hypervolume([[0.5, 1.0], [1.0, 0.5]]) == pytest.approx(2.0 / 4)
    # Nothing beyond the reference counts.
    assert hypervolume([[0.1, 2.5]]) == 0.0


@given(hnp.arrays(float, st.tuples(st.integers(2, 6), st.just(4)), elements=st.floats(0.05, 1.9)))
def test_hypervolume_grows_with_points_and_ignores_dominated_ones(points: np.ndarray) -> None:
    whole = hypervolume(points)
    assert 0.0 < whole < 1.0
    assert hypervolume(points[:-1]) <= whole + 1e-12
    dominated = np.minimum(points.max(axis=0) + 0.01, 2.0)
    assert hypervolume(np.vstack([points, dominated])) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("baseline", "score", "bound", "closed"),
    [(10, 10, 4, 0.0), (10, 7, 4, 0.5), (10, 4, 4, 1.0), (10, 16, 4, -1.0), (-1, -2, -3, 0.5)],
)
def test_share_of_the_gap_that_is_closed(baseline, score, bound, closed) -> None:
    as_strata = ([np.array([[float(value)]])] for value in (score, baseline, bound))
    assert gap_closed(*as_strata)[0].item() == closed


def test_without_a_gap_there_is_no_share_of_it() -> None:
    cells = np.array([[4.0, 10.0]])
    closed = gap_closed([cells + 1.0], [cells], [np.array([[4.0, 4.0]])])[0]
    assert np.isnan(closed[0, 0])
    assert closed[0, 1] == pytest.approx(-1 / 6)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_nothing_closes_more_than_the_gap(bound, above, higher) -> None:
    cells = ([np.array([[value]])] for value in (bound + above, bound + higher, bound))
    closed = gap_closed(*cells)[0].item()
    assert np.isnan(closed) or closed <= 1.0


def test_attainable_share_by_hand() -> None:
    # The first of two objectives above 0.5, their mean too: three quarters less a corner.
    assert attainable_share([[1.0, 0.0]], [0.5], 2.0) == pytest.approx(0.75, abs=0.002)
    share = attainable_share([[1.0, 0.0], [0.5, 0.5]], [0.5, 0.5], 2.0)
    assert share == pytest.approx(0.75 - 0.5 * 0.5 / 2 / 4, abs=0.002)
    assert attainable_share([[1.0, 1.0]], [-1.0], 2.0) == 1.0


@given(
    points=hnp.arrays(float, (4, 3), elements=st.floats(0.1, 1.9)),
    weights=hnp.arrays(float, (5, 3), elements=st.floats(0.0, 1.0)),
)
def test_no_front_has_more_than_the_bounds_on_it_allow(
    points: np.ndarray, weights: np.ndarray
) -> None:
    least = (weights @ points.T).min(axis=1)
    assert hypervolume(points) <= attainable_share(weights, least - 1e-9) + 0.005
