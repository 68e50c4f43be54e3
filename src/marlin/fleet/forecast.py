"""Forecasts of demand and signals for schedulers, causal by construction.

Every series has seven simple predictors, and the one that has lately been best speaks for it: the
last value, and the mean pattern of the day or of the week plus none, most or all of the last
value's departure from that pattern. A pattern is an exponentially weighted mean of the values that
were seen at the same epoch of the day (week). Online and whole-series forecasts run the same code
and agree bit for bit.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

DAMPINGS = (0.0, 0.9, 1.0)
"""Share of a departure from a pattern that may last one epoch: noise, a drift, a new level."""
LATER_DAMPING = 0.99
"""The same for each later epoch of a forecast of several, at most."""
DAY_WEIGHT, WEEK_WEIGHT = 0.2, 0.3
"""Weight of the newest value in the mean pattern of the day and of the week."""


class Forecaster:
    """Forecasts N series one epoch ahead, and further on request, from what it has been shown.

    Before any value a forecast is NaN; until a day has been seen it is the last value. A series
    that has never been negative is not forecast to be.

    `season` and `long_season`: epochs of a day and of a week. `noise`: relative standard
    deviation of a multiplicative lognormal error of mean 1 that is put on forecasts, one number or
    one for each series [N]; it needs `rng`, from which each epoch draws N normal numbers.

    Raises ValueError if `noise` is given without `rng`, or if seasons are not 0 < day < week.
    Source: seasonal naive and drift methods, exponential smoothing (Hyndman and Athanasopoulos,
    "Forecasting: Principles and Practice", 2021); the pool and its weights are this project's.
    """

    def __init__(
        self,
        season: int = 96,
        long_season: int = 672,
        noise: float | Values = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Start with no history."""
        if not 0 < season < long_season:
            raise ValueError(f"seasons {season} and {long_season} are not 0 < season < long_season")
        error_factor(noise, rng, (0, *np.shape(noise)))
        self._season = season
        self._long_season = long_season
        self._noise = noise
        self._rng = rng
        self._keep = 1 - 1 / season
        self._epoch = 0
        self._series = -1

    def update(self, values: Values) -> None:
        """Take the values [N] observed in the epoch that just ended.

        Raises ValueError if their number changes or one is not finite.
        """
        self.consume(np.asarray(values, dtype=np.float64)[None])

    def predict(self) -> Values:
        """Forecast of the next epoch [N]; NaN (of shape []) before the first update."""
        return self._forecast.copy() if self._epoch else np.array(np.nan)

    def predict_ahead(self, steps: int) -> Values:
        """Forecast of the next `steps` epochs [steps, N], the first as `predict`.

        From the second on it follows the better pattern, once a day has been seen. Noise is one
        factor for all steps of a series.
        Raises ValueError before the first update.
        """
        if not self._epoch:
            raise ValueError("a forecast of several epochs needs at least one update")
        ahead = np.empty((steps, self._series))
        choice = 1 + self._errors[1:].argmin(axis=0)
        damping = np.tile(np.array(DAMPINGS), 2)[choice - 1]
        weekly = choice > len(DAMPINGS)
        for step in range(steps):
            epoch = self._epoch + step
            pattern = np.where(
                weekly, self._week[epoch % self._long_season], self._day[epoch % self._season]
            )
            departure = np.where(weekly, self._departure[1], self._departure[0])
            damped = damping * np.minimum(damping, LATER_DAMPING) ** step * departure
            later = pattern + damped
            later = np.where(np.isnan(later), self._last, later)
            later = np.where(self._lowest >= 0, np.maximum(later, 0), later)
            ahead[step] = later * self._error_factor
        ahead[:1] = self._forecast
        return ahead

    def consume(self, rows: Values) -> Values:
        """Take several epochs at once, [R, N] with R <= season; forecast after each [R, N].

        Row r is the forecast of the epoch after `rows[r]` and rests on no later row.
        """
        self._check(rows)
        if self._series < 0:
            self._start(rows.shape[1])
        day, next_day = self._follow(self._day, rows, DAY_WEIGHT)
        week, next_week = self._follow(self._week, rows, WEEK_WEIGHT)
        members = [rows]
        for pattern, next_pattern in ((day, next_day), (week, next_week)):
            departure = rows - pattern
            members += [next_pattern + damping * departure for damping in DAMPINGS]
        pool = np.stack(members, axis=1)
        choice = self._score(pool, rows).argmin(axis=1)
        forecast = np.take_along_axis(pool, choice[:, None], axis=1)[:, 0]
        lowest = np.minimum(np.minimum.accumulate(rows, axis=0), self._lowest)
        forecast = np.where(lowest >= 0, np.maximum(forecast, 0), forecast)
        factor = error_factor(self._noise, self._rng, rows.shape)
        forecast, self._error_factor = forecast * factor, factor[-1]
        self._epoch += len(rows)
        self._pool, self._lowest, self._last = pool[-1], lowest[-1], rows[-1]
        self._departure = rows[-1] - np.stack([day[-1], week[-1]])
        self._forecast = forecast[-1]
        return forecast

    def _check(self, rows: Values) -> None:
        if self._series >= 0 and rows.shape[1] != self._series:
            raise ValueError(f"{rows.shape[1]} values after updates of {self._series}")
        if not np.isfinite(rows).all():
            raise ValueError(f"a value at or after epoch {self._epoch} is not finite")

    def _start(self, series: int) -> None:
        self._series = series
        self._day = np.full((self._season, series), np.nan)
        self._week = np.full((self._long_season, series), np.nan)
        members = 1 + 2 * len(DAMPINGS)
        self._pool = np.full((members, series), np.nan)
        self._errors = np.full((members, series), np.inf)
        self._lowest = np.full(series, np.inf)
        self._error_factor = np.ones(series)

    def _follow(self, table: Values, rows: Values, weight: float) -> tuple[Values, Values]:
        """Patterns [R, N] of the epochs of `rows` and of the epochs after them; then learn."""
        slots = (self._epoch + np.arange(len(rows) + 1)) % len(table)
        pattern = table[slots[:-1]]
        learned = pattern + weight * (rows - pattern)
        table[slots[:-1]] = np.where(np.isnan(pattern), rows, learned)
        # At most a season of rows: only the last slot can be one that they have just changed.
        return pattern, np.concatenate([pattern[1:], table[slots[-1:]]])

    def _score(self, pool: Values, rows: Values) -> Values:
        """Running mean absolute error of each predictor after each row [R, P, N]; inf if untried.

        `pool` [R, P, N] holds what the predictors say of the epoch after each row.
        """
        said = np.concatenate([self._pool[None], pool[:-1]])
        error = np.abs(said - rows[:, None])
        error[np.isnan(error)] = np.inf
        fresh = (1 - self._keep) * error
        running = np.empty_like(error)
        errors = self._errors
        for row in range(len(rows)):
            mixed = self._keep * errors + fresh[row]
            errors = np.where(np.isinf(errors), error[row], mixed)
            running[row] = errors
        self._errors = errors
        return running


def predict_series(
    values: Values,
    season: int = 96,
    long_season: int = 672,
    noise: float | Values = 0.0,
    rng: np.random.Generator | None = None,
) -> Values:
    """One-epoch-ahead forecasts of whole series [T, N]: row t rests on `values[:t]` only.

    The values must follow each other in time without a gap (see `contiguous`). Row 0 is NaN.
    Equal, bit for bit, to what a `Forecaster` of the same arguments predicts before it is shown
    row t.
    Raises ValueError as `Forecaster` does.
    """
    values = np.asarray(values, dtype=np.float64)
    forecaster = Forecaster(season, long_season, noise, rng)
    predicted = np.full(values.shape, np.nan)
    for start in range(0, len(values) - 1, season):
        stop = min(start + season, len(values) - 1)
        predicted[start + 1 : stop + 1] = forecaster.consume(values[start:stop])
    return predicted


def error_factor(
    noise: float | Values, rng: np.random.Generator | None, shape: tuple[int, ...]
) -> Values:
    """Lognormal factors of mean 1 and relative standard deviation `noise`, of the given shape.

    Without noise they are 1 and nothing is drawn. Raises ValueError for noise without `rng`.
    """
    if not np.any(np.asarray(noise) > 0):
        return np.ones(shape)
    if rng is None:
        raise ValueError("forecast noise needs a random generator: pass rng")
    log_sd = np.sqrt(np.log1p(np.square(noise)))
    return np.exp(log_sd * rng.standard_normal(shape) - log_sd**2 / 2)


def contiguous(time: np.ndarray) -> list[slice]:
    """Stretches of `time` [T] without a gap: each is a series of its own for `predict_series`.

    The shortest step between neighbours is taken as the epoch. Raises ValueError if time does not
    go forward.
    """
    steps = np.diff(time)
    if len(steps) and not steps.min() > np.timedelta64(0):
        raise ValueError("time does not go forward from epoch to epoch")
    breaks = np.flatnonzero(steps != steps.min()) + 1 if len(steps) else []
    edges = [0, *(int(edge) for edge in breaks), len(time)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def relative_error(predicted: Values, observed: Values) -> Values:
    """Mean absolute error over mean absolute value of each series, [T, N] -> [N].

    Rows without a forecast (NaN) are left out; a series of zeros gives NaN or infinity.
    Also known as the weighted absolute percentage error: unlike the mean of percentages it stands
    values near zero, which prices have.
    """
    known = np.isfinite(predicted)
    error = np.abs(np.where(known, predicted - observed, 0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return error / np.abs(np.where(known, observed, 0)).sum(axis=0)
