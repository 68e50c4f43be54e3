"""Measured errors of every forecast: `python -m marlin.forecast_errors --output F SETTINGS...`.

Writes a CSV with a row for each signal, forecast, horizon and split of the scenario that the
settings name: the error over all epochs that have a week of history behind them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from marlin import compose, inputs
from marlin.entry import guard
from marlin.files import write_bytes
from marlin.fleet.forecast import Forecaster, contiguous, relative_error
from marlin.fleet.predictors import ridge_series, seasonal_naive
from marlin.fleet.world import HISTORY, TEST

SIGNALS = {
    "requests": "arrival_rate_per_s",
    "carbon": "carbon_g_per_kwh",
    "price": "price_usd_per_mwh",
    "dry bulb": "drybulb_c",
    "wet bulb": "wetbulb_c",
}
HORIZONS_H = (0.25, 1.0, 6.0, 24.0)
STRIDE = 23
"""The pool is asked for forecasts of several epochs at each 23rd: at every hour of the day."""


def pool_ahead(values: np.ndarray, season: int, long_season: int, horizon: int) -> np.ndarray:
    """What the pool says of each epoch `horizon` epochs before, [T, N]; NaN where not asked."""
    forecaster = Forecaster(season, long_season)
    result = np.full(values.shape, np.nan)
    for start in range(0, len(values) - horizon, STRIDE):
        forecaster.consume(values[start : start + STRIDE])
        target = start + STRIDE - 1 + horizon
        if target < len(values):
            result[target] = forecaster.predict_ahead(horizon)[-1]
    return result


def last_value(values: np.ndarray, season: int, long_season: int, horizon: int) -> np.ndarray:
    """The last value, [T, N]: what every forecast is to be better than."""
    result = np.full(values.shape, np.nan)
    result[horizon:] = values[: len(values) - horizon]
    return result


KINDS: dict[str, Callable[[np.ndarray, int, int, int], np.ndarray]] = {
    "last value": last_value,
    "seasonal_naive": lambda v, season, _, horizon: seasonal_naive(v, season, horizon),
    "ridge": ridge_series,
    "pool": pool_ahead,
}


def errors(scenario: xr.Dataset, epochs_per_day: int) -> pd.DataFrame:
    """Median over series and the worst series of the relative error, by signal and horizon.

    The error is the mean absolute error over the mean absolute value; temperatures are in degC.
    """
    time, split = scenario["time"].to_numpy(), scenario["split"].to_numpy()
    season, week = epochs_per_day, 7 * epochs_per_day
    known = np.zeros(len(time), dtype=bool)
    for stretch in contiguous(time):
        known[stretch.start + week : stretch.stop] = True
    jobs = [(signal, hours, kind) for signal in SIGNALS for hours in HORIZONS_H for kind in KINDS]
    rows = []
    for signal, hours, kind in tqdm(jobs, unit="forecast", disable=not sys.stderr.isatty()):
        values = scenario[SIGNALS[signal]].to_numpy().astype(float).reshape(len(time), -1)
        horizon = round(hours * epochs_per_day / 24)
        predicted = np.concatenate(
            [KINDS[kind](values[part], season, week, horizon) for part in contiguous(time)]
        )
        for name, chosen in (("train", split != TEST), ("test", split == TEST)):
            here = chosen & known & (split != HISTORY) & np.isfinite(predicted).all(axis=1)
            relative = relative_error(predicted[here], values[here])
            rows.append(
                {
                    "signal": signal,
                    "horizon_h": hours,
                    "forecast": kind,
                    "split": name,
                    "relative_error_median": float(np.median(relative)),
                    "relative_error_max": float(relative.max()),
                    "series": values.shape[1],
                }
            )
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m marlin.forecast_errors", description=__doc__)
    parser.add_argument("settings", nargs="*", help="overrides, for example signals=measured")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    given = parser.parse_args(arguments)
    with guard():
        from marlin.data.prepare import read

        run = compose.compose(["method=round_robin", *given.settings])
        table = errors(read(inputs.ready(run).scenario), 24 * 60 // run.scenario.epoch_minutes)
        write_bytes(given.output, table.to_csv(index=False, float_format="%.5f").encode())
        print(f"{len(table)} forecast errors in {given.output}")


if __name__ == "__main__":
    main()
