"""Forecasts to choose from: causal, exact where they can be, with the error they say."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from test_forecast import daily_weekly

from marlin import forecast_errors
from marlin.fleet.forecast import relative_error
from marlin.fleet.predictors import forecast_series, ridge_series, seasonal_naive

DAY, WEEK = 4, 12
KINDS = ("pool", "seasonal_naive", "ridge")


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 59), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_future_does_not_reach_the_past(kind: str, cut: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(60, 2))
    changed = values.copy()
    changed[cut:] += 100 * rng.normal(size=changed[cut:].shape)
    before, after = (forecast_series(kind, v, DAY, WEEK)[: cut + 1] for v in (values, changed))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("horizon", [2, 4, 6])
def test_a_longer_horizon_knows_less(horizon: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 2))
    changed = values.copy()
    changed[50:] += 100
    for predict in (
        lambda v: ridge_series(v, DAY, WEEK, horizon),
        lambda v: seasonal_naive(v, DAY, horizon),
    ):
        before, after = predict(values), predict(changed)
        np.testing.assert_array_equal(before[: 50 + horizon], after[: 50 + horizon])
        assert not np.array_equal(before[50 + horizon :], after[50 + horizon :])
        assert np.isnan(before[:horizon]).all()
        assert np.isfinite(before[horizon:]).all()


def test_seasonal_naive_by_hand() -> None:
    values = np.arange(10.0)[:, None]
    got = seasonal_naive(values, 4)[:, 0]
    np.testing.assert_array_equal(got[1:], [0, 1, 2, 0, 1, 2, 3, 4, 5])


def test_ridge_finds_a_law_of_its_lags() -> None:
    # x[t] = 1.2 x[t-1] - 0.5 x[t-2] + 3 + a shock known to nobody.
    rng = np.random.default_rng(1)
    values = np.full((96 * 20, 1), 10.0)
    shocks = 0.1 * rng.standard_normal(values.shape)
    for t in range(2, len(values)):
        values[t] = 1.2 * values[t - 1] - 0.5 * values[t - 2] + 3 + shocks[t]
    got = forecast_series("ridge", values, 96, 672)[96 * 10 :]
    error = np.abs(got - values[96 * 10 :]).mean()
    assert error == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.05)
    last = np.abs(np.diff(values[96 * 10 :], axis=0)).mean()
    assert error < 0.85 * last


def test_ridge_beats_the_day_before_on_a_week_with_weekends() -> None:
    values = daily_weekly(35)
    late = slice(21 * 96, None)
    errors = {
        kind: relative_error(forecast_series(kind, values, 96, 672)[late], values[late]).mean()
        for kind in KINDS
    }
    assert errors["ridge"] < 0.8 * errors["seasonal_naive"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_noise_is_calibrated_whatever_the_forecast(kind: str, noise: float) -> None:
    values = np.full((20_000, 2), 50.0)
    got = forecast_series(kind, values, DAY, WEEK, noise, np.random.default_rng(5))[200:]
    np.testing.assert_allclose(got.mean(axis=0), 50.0, rtol=0.01)
    np.testing.assert_allclose(got.std(axis=0) / 50, noise, rtol=0.05, atol=1e-3)
    # A lognormal factor of mean 1 lies 2 (2 Phi(s / 2) - 1) from it on average, s its log's spread.
    log_sd = np.sqrt(np.log1p(noise**2))
    expected = 2 * (2 * norm.cdf(log_sd / 2) - 1)
    np.testing.assert_allclose(relative_error(got, values[200:]), expected, rtol=0.05, atol=1e-3)


def test_noise_needs_a_generator_and_a_forecast_a_name() -> None:
    with pytest.raises(ValueError, match="rng"):
        forecast_series("ridge", np.ones((10, 1)), DAY, WEEK, 0.1)
    with pytest.raises(ValueError, match="'arima'"):
        forecast_series("arima", np.ones((10, 1)), DAY, WEEK)


def test_the_table_has_every_signal_and_horizon_and_longer_is_not_easier() -> None:
    dataset = synthetic.scenario(days=28, test_days=7)
    table = forecast_errors.errors(dataset, 96)
    assert len(table) == 5 * 4 * 4 * 2
    assert np.isfinite(table["relative_error_max"]).all()
    keyed = table.set_index(["signal", "forecast", "split", "horizon_h"]).sort_index()
    errors = keyed["relative_error_median"]
    carbon = errors["carbon", "last value", "test"]
    assert carbon[0.25] < carbon[1.0] < carbon[6.0]
    # The made-up day repeats itself: the day before says it all.
    assert errors["carbon", "seasonal_naive", "test"].max() < 1e-12
    assert errors["carbon", "ridge", "test"].max() < 1e-3
