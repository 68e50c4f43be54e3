"""Interquartile means, stratified bootstrap intervals, paired ratios and hypervolume.

Scores of one method are a list of strata, one per scenario; a stratum is an array `[S, T]` of
S seeds by T test days. The unit that is resampled is the seed, within its scenario, and a seed
keeps all its days: the days of one trained policy are not independent of each other. Days are
part of the design and are not resampled, so an interval speaks of the training and sampling
seed on these days.

Sources: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice"
(NeurIPS 2021) for the interquartile mean, the stratified bootstrap and the probability of
improvement; Zitzler and Thiele (IEEE TEVC 1999) for the hypervolume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats.qmc import Sobol

from marlin.errors import UserError

CONFIDENCE = 0.95
RESAMPLES = 2_000
# Hypervolume counts what lies below this multiple of round robin in every objective.
HYPERVOLUME_REFERENCE = 2.0
BOX_POINTS_LOG2 = 16

Array = NDArray[np.float64]
Strata = Sequence[Array]


@dataclass(frozen=True)
class Estimate:
    """A point estimate and its confidence interval, in the unit of the scores."""

    point: float
    low: float
    high: float


def interquartile_mean(scores: ArrayLike) -> Array:
    """Mean of the middle half of the last axis: `[..., N]` to `[...]`.

    floor(N / 4) values are dropped at each end. Source: Agarwal et al. 2021, section 4.3.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    count = ordered.shape[-1]
    if count == 0:
        raise ValueError("interquartile mean of no scores")
    drop = count // 4
    return ordered[..., drop : count - drop].mean(axis=-1)


def _flatten(strata: Strata) -> Array:
    return np.concatenate([stratum.reshape(-1) for stratum in strata])


def bootstrap_interquartile_means(
    strata: Strata, *, resamples: int = RESAMPLES, seed: int = 0
) -> Array:
    """Interquartile means `[R]` of R resamples of seeds within each stratum `[S, T]`."""
    rng = np.random.default_rng(seed)
    columns = []
    for stratum in strata:
        seeds = stratum.shape[0]
        draws = rng.integers(seeds, size=(resamples, seeds))
        columns.append(stratum[draws].reshape(resamples, -1))
    return interquartile_mean(np.concatenate(columns, axis=1))


def _interval(samples: Array, confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return float(low), float(high)


def estimate(
    strata: Strata,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Interquartile mean of all cells of `strata` with a percentile bootstrap interval.

    The interval is widened to hold the point where the percentiles of few, skewed seeds leave
    it out. One seed, or seeds that agree, give an interval of no width.
    """
    point = float(interquartile_mean(_flatten(strata)))
    low, high = _interval(
        bootstrap_interquartile_means(strata, resamples=resamples, seed=seed), confidence
    )
    return Estimate(point, min(low, point), max(high, point))


def _same_seeds(scores: Array, baseline: Array) -> tuple[Array, Array]:
    """Repeat a single seed so that both `[S, T]` arrays pair seed by seed and day by day."""
    seeds = max(scores.shape[0], baseline.shape[0])
    for array in (scores, baseline):
        if array.shape[0] not in (1, seeds) or array.shape[1] != scores.shape[1]:
            raise UserError(
                f"cannot pair {scores.shape[0]} seeds x {scores.shape[1]} days with a baseline of "
                f"{baseline.shape[0]} seeds x {baseline.shape[1]} days: "
                "run both methods with the same seeds and test days"
            )
    shape = (seeds, scores.shape[1])
    return np.broadcast_to(scores, shape), np.broadcast_to(baseline, shape)


def paired_ratio(scores: Strata, baseline: Strata) -> list[Array]:
    """Score over baseline for each seed and day: strata `[S, T]`, dimensionless.

    Both ran on the same demand and signals (common random numbers), so the ratio of a cell does
    not carry the difference between days. Raises UserError where the cells do not pair or where
    the baseline is not positive.
    """
    ratios = []
    for own, other in zip(scores, baseline, strict=True):
        own_cells, other_cells = _same_seeds(own, other)
        if np.any(other_cells <= 0.0):
            raise UserError(
                "a ratio to the baseline is undefined where the baseline's daily total is zero or "
                "negative: choose test days or a baseline with a positive total"
            )
        ratios.append(own_cells / other_cells)
    return ratios


def gap_closed(scores: Strata, baseline: Strata, bound: Strata) -> list[Array]:
    """Share of the way from the baseline to the bound that a method goes, `[S, T]` per stratum.

    ``(baseline - score) / (baseline - bound)`` by seed and day: one at the bound, zero at the
    baseline, negative where the method is worse. `bound` strata are `[1, T]`. NaN on a day on which
    the baseline is at its bound: there is no gap to close.
    """
    shares = []
    for own, other, least in zip(scores, baseline, bound, strict=True):
        own_cells, other_cells = _same_seeds(own, other)
        gap = other_cells - least
        with np.errstate(divide="ignore", invalid="ignore"):
            shares.append(np.where(gap > 0.0, (other_cells - own_cells) / gap, np.nan))
    return shares


def reduction_percent(
    scores: Strata,
    baseline: Strata,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Reduction against the baseline in per cent, `100 (1 - IQM of paired ratios)`.

    Positive means that the scores are lower (better) than the baseline's.
    """
    ratio = estimate(
        paired_ratio(scores, baseline), confidence=confidence, resamples=resamples, seed=seed
    )
    return Estimate(*(100.0 * (1.0 - bound) for bound in (ratio.point, ratio.high, ratio.low)))


def probability_of_improvement(
    scores: Strata,
    baseline: Strata,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Probability that a run of the method is lower than a run of the baseline on the same day.

    All pairs of seeds are compared within a day, ties count one half, days of a scenario and then
    scenarios are averaged with equal weight. Seeds of both sides are resampled within scenarios.
    Source: Agarwal et al. 2021, section 4.3.
    """
    rng = np.random.default_rng(seed)
    points, samples = [], []
    for own, other in zip(scores, baseline, strict=True):
        if own.shape[1] != other.shape[1]:
            raise UserError(
                f"cannot compare {own.shape[1]} test days with {other.shape[1]}: "
                "run both methods on the same test days"
            )
        pairs = (own[:, None] < other[None]) + 0.5 * (own[:, None] == other[None])
        wins = pairs.mean(axis=-1)
        weights = [rng.multinomial(n, np.full(n, 1.0 / n), size=resamples) / n for n in wins.shape]
        points.append(wins.mean())
        samples.append(np.einsum("ri,ij,rj->r", weights[0], wins, weights[1]))
    low, high = _interval(np.mean(samples, axis=0), confidence)
    point = float(np.mean(points))
    return Estimate(point, min(low, point), max(high, point))


def hypervolume(points: ArrayLike, *, reference: float = HYPERVOLUME_REFERENCE) -> float:
    """Share of the box from 0 to `reference` that `points` `[N, J]` dominate, in [0, 1].

    Points are objectives relative to round robin (lower is better), so round robin alone scores
    `(1 - 1 / reference) ** J`. Computed with moocore. Source: Zitzler and Thiele 1999.
    """
    import moocore

    front = np.atleast_2d(np.asarray(points, dtype=np.float64))
    objectives = front.shape[1]
    volume = moocore.hypervolume(front, ref=np.full(objectives, reference))
    return float(volume) / reference**objectives


def attainable_share(
    weights: ArrayLike, least: ArrayLike, reference: float = HYPERVOLUME_REFERENCE
) -> float:
    """Share of the box from 0 to `reference` that lies above every bound, in [0, 1].

    ``weights`` [W, J], not negative, and ``least`` [W]: no plan's objectives y have ``weights y``
    below ``least``. What a point dominates has no smaller sums, so the hypervolume of any set of
    plans is at most this share. Counted on Sobol points that never change: an error below 0.002.
    """
    rows = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    above = _box(rows.shape[1]) * reference @ rows.T >= np.asarray(least)
    return float(above.all(axis=1).mean())


@cache
def _box(dimensions: int) -> Array:
    """Points [N, J] that fill the unit cube evenly."""
    return Sobol(dimensions, rng=0).random_base2(BOX_POINTS_LOG2)
