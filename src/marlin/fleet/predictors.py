"""The forecasts that a run can choose from, each over whole series and causal by construction.

`pool`: seven simple predictors, the best of late (`marlin.fleet.forecast`). `seasonal_naive`: the
value of a day before. `ridge`: regressions on lags of three kinds, refitted every day on what came
before, and the best of late, as in SLIT (2025).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marlin.fleet.forecast import error_factor, predict_series

Values = NDArray[np.float64]

MEMORY_DAYS = 28.0
"""Rows that a regression learns from lose weight with this time constant."""
PENALTY = 1e-4
"""Ridge penalty over the mean square of the lags."""


def forecast_series(
    kind: str,
    values: Values,
    season: int,
    long_season: int,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Values:
    """One-epoch-ahead forecasts of whole series [T, N] by the predictor `kind`; row 0 is NaN.

    Row t rests on `values[:t]` only; the values follow each other in time without a gap. `noise`
    is the relative standard deviation of a lognormal error of mean 1, drawn from `rng`.
    Raises ValueError for an unknown kind, or noise without `rng`.
    """
    if kind == "pool":
        return predict_series(values, season, long_season, noise, rng)
    values = np.asarray(values, dtype=np.float64)
    if kind == "seasonal_naive":
        predicted = seasonal_naive(values, season)
    elif kind == "ridge":
        predicted = ridge_series(values, season, long_season)
    else:
        raise ValueError(f"no forecast is called {kind!r}")
    return predicted * error_factor(noise, rng, values.shape)


def seasonal_naive(values: Values, season: int, horizon: int = 1) -> Values:
    """Forecasts [T, N] made `horizon` epochs before: the value of the last known same hour.

    Until a season is known, the last value; the first `horizon` rows are NaN.
    Source: seasonal naive method (Hyndman and Athanasopoulos, "Forecasting", 2021).
    """
    predicted = shifted(values, horizon)
    lag = season * -(-horizon // season)
    predicted[lag:] = values[: max(len(values) - lag, 0)]
    return predicted


def ridge_series(values: Values, season: int, long_season: int, horizon: int = 1) -> Values:
    """Forecasts [T, N] made `horizon` epochs before by the best of the lag regressions of late.

    Three ridge regressions a series, on the newest values, on those and the same hours of the day
    before, and on those and the week before; and the last value as it is. Coefficients are solved
    once a day from the rows before it, weighted towards new ones; the choice follows the running
    mean absolute error over about a day. A series that has never been negative is not forecast to
    be. The first `horizon` rows are NaN. Source: pool of incrementally trained linear regressions,
    the best current one used (SLIT, 2025); the lags and weights are this project's.
    """
    day = season * -(-horizon // season)
    week = long_season * -(-horizon // long_season)
    newest = [horizon, horizon + 1, horizon + 2, horizon + 3]
    members = [shifted(values, horizon)]
    for lags in (newest, [*newest[:2], day, day + 1], [*newest[:2], day, week, week + 1]):
        fitted = _regression(values, lags, season, horizon)
        members.append(np.where(np.isnan(fitted), members[0], fitted))
    pool = np.stack(members)  # [P, T, N]
    error = _running_error(np.abs(pool - values), season)
    # The error that is known when a forecast is made is that of `horizon` epochs before.
    known = np.stack([shifted(member, horizon) for member in error])
    choice = np.where(np.isnan(known), np.inf, known).argmin(axis=0)
    chosen = np.take_along_axis(pool, choice[None], axis=0)[0]
    lowest = shifted(np.minimum.accumulate(values, axis=0), horizon)
    return np.where(lowest >= 0, np.maximum(chosen, 0), chosen)


def shifted(values: Values, lag: int) -> Values:
    """The values `lag` rows later, with NaN before them."""
    result = np.full(values.shape, np.nan)
    result[lag:] = values[: max(len(values) - lag, 0)]
    return result


def _running_error(error: Values, season: int) -> Values:
    """Exponentially weighted mean over about a season along axis 1, NaN counting as none."""
    from scipy.signal import lfilter

    weight = 1 / season
    known = np.nan_to_num(error)
    return np.asarray(lfilter([weight], [1.0, weight - 1.0], known, axis=1))


def _regression(values: Values, lags: list[int], block: int, horizon: int) -> Values:
    """Forecasts [T, N] by one ridge regression a series; NaN until a block has been learned.

    The coefficients of a block rest on targets that were known when its first row was forecast.
    """
    count, series = values.shape
    first = max(lags)
    newest = shifted(values, lags[0])
    # In departures from the newest value, so that the penalty pulls towards it.
    centre = values[:block].mean(axis=0)
    spread = np.broadcast_to(np.abs(values[:block] - centre).mean(axis=0), values.shape)
    departures = [shifted(values, lag) - newest for lag in lags[1:]]
    columns = np.stack([newest - centre, *departures, spread], axis=-1)  # [T, N, K]
    change = values - newest
    size = columns.shape[-1]
    gram, moment = np.zeros((series, size, size)), np.zeros((series, size))
    decay = np.exp(-1 / MEMORY_DAYS)
    predicted = np.full(values.shape, np.nan)
    learned = first
    for start in range(first, count, block):
        stop = start - horizon + 1
        if stop > learned:
            rows, targets = columns[learned:stop], change[learned:stop]
            gram = decay * gram + np.einsum("tnj,tnk->njk", rows, rows)
            moment = decay * moment + np.einsum("tnj,tn->nj", rows, targets)
            learned = stop
        if learned < first + block - horizon:
            continue
        size_of = np.trace(gram, axis1=1, axis2=2)[:, None, None] / size
        penalty = (PENALTY * size_of + np.finfo(float).tiny) * np.eye(size)
        weights = np.linalg.solve(gram + penalty, moment[..., None])[..., 0]
        ahead = slice(start, start + block)
        predicted[ahead] = newest[ahead] + np.einsum("tnk,nk->tn", columns[ahead], weights)
    return predicted
