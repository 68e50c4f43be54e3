"""Hourly signals drawn from embedded climatologies: right means, spread and autocorrelation.

Every (variable, zone) has a latent Gaussian series: a weekly profile (carbon and price) plus an
autoregression whose shocks are correlated across zones and variables. Within a month x
hour-of-day cell, the ranks of the latent values pick from the cell's shape (a curve of ordered
residuals, chosen by the skewness of the cell, so that price spikes stay rare and large), which is
scaled by the measured mean and spread of the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from marlin.data.autoregression import coefficients
from marlin.data.places import check_zones
from marlin.data.signals import VARIABLES, YEARS, HourlySignals, all_hours
from marlin.data.tables import embedded_zones, table
from marlin.errors import UserError

SEED = 2023_2024
BURN_IN_H = 2000
WEEK_H = 7 * 24
CELLS = 12 * 24
SHAPE_POINTS = 31
CLIPPING_PASSES = 8
AUTOREGRESSION = "embedded/autoregression.csv.gz"
SHOCKS = "embedded/shock_correlation.csv.gz"
WEEKLY = "embedded/weekly.csv.gz"
SHAPES = "embedded/shapes.csv"
BOUNDS = "embedded/bounds.csv"
STATISTICS = {
    "carbon_g_per_kwh": "embedded/carbon.csv.gz",
    "price_usd_per_mwh": "embedded/price.csv.gz",
    "drybulb_c": "embedded/weather.csv.gz",
    "relative_humidity": "embedded/weather.csv.gz",
}


def column_of(variable: str, family: str) -> str:
    """Return the column stem of a variable in the embedded tables (carbon has two families)."""
    return f"{family}_g_per_kwh" if variable == "carbon_g_per_kwh" else variable


def cell_of(time: pd.DatetimeIndex) -> np.ndarray:
    """Return the month x hour cell [T], 0..287, of UTC hours."""
    return ((time.month - 1) * 24 + time.hour).to_numpy()


def standardise(values: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (residuals with mean 0 and variance 1 in each cell, cell means, cell spreads)."""
    counts = np.maximum(np.bincount(cells, minlength=CELLS), 1)
    mean = np.bincount(cells, values, minlength=CELLS) / counts
    centred = values - mean[cells]
    spread = np.sqrt(np.bincount(cells, centred**2, minlength=CELLS) / counts)
    safe = np.where(spread > 0, spread, 1.0)
    return centred / safe[cells], mean, spread


def read(zones: Sequence[str], hours: pd.DatetimeIndex, family: str) -> HourlySignals:
    """Return drawn signals of `zones` at `hours` (UTC, within the years that the tables cover).

    The draw is the same for every subset of zones and hours. Raises UserError for an unknown
    zone, for hours of other years, and for a zone without a price in the year asked for.
    """
    known = embedded_zones()
    check_zones(zones, known, "embedded")
    rows = all_hours().get_indexer(hours)
    if (rows < 0).any():
        raise UserError(
            f"signals=embedded has no hour {hours[int(np.argmax(rows < 0))]} UTC: its tables cover "
            f"{YEARS[0]} to {YEARS[-1]}; choose a period of those years"
        )
    drawn = draw(family)
    columns = [known.index(zone) for zone in zones]
    values = {name: drawn[name][rows[:, None], columns] for name in VARIABLES}
    missing = np.isnan(values["price_usd_per_mwh"]).any(axis=0)
    if missing.any():
        zone = zones[int(np.argmax(missing))]
        raise UserError(
            f"price_usd_per_mwh of zone {zone} is not known in part of {hours[0].date()} to "
            f"{hours[-1].date()} (docs/data.md): choose another period or zone"
        )
    return HourlySignals(hours, tuple(zones), values, ())


@lru_cache(maxsize=2)
def draw(family: str, seed: int = SEED) -> dict[str, np.ndarray]:
    """Return every variable over all hours and all known zones, [T, Z] each; do not write to it.

    `read` hands out the draw of the default seed, on which the tables were calibrated.
    """
    models, shocks, weekly = table(AUTOREGRESSION), table(SHOCKS), table(WEEKLY)
    return signals_of(latent_series(models, shocks, weekly, seed), family, table)


def signals_of(
    latent: np.ndarray, family: str, tables: Callable[[str], pd.DataFrame]
) -> dict[str, np.ndarray]:
    """Return every variable [T, Z] that a latent series [T, variables x zones] stands for.

    `tables` returns a table by its name in the package. NaN in years that a zone lacks.
    """
    hours = all_hours()
    shapes, bounds = _rows_by_key(tables(SHAPES), 2), _rows_by_key(tables(BOUNDS), 3)
    zones = sorted(tables(STATISTICS["drybulb_c"])["zone"].unique())
    result = {name: np.full((len(hours), len(zones)), np.nan) for name in VARIABLES}
    for i, variable in enumerate(VARIABLES):
        stem = column_of(variable, family)
        for _, cells in tables(STATISTICS[variable]).groupby(["zone", "year"]):
            zone, year = str(cells["zone"].iloc[0]), int(cells["year"].iloc[0])
            j = zones.index(zone)
            rows = np.flatnonzero(hours.year == year)
            cell = cell_of(hours[rows])
            curves = np.stack([shapes[stem, k] for k in cells[f"{stem}_shape"]])
            residual = shape_residuals(latent[rows, i * len(zones) + j], cell, curves)
            mean = cells[f"{stem}_mean"].to_numpy(float)
            spread = cells[f"{stem}_sd"].to_numpy(float)
            values = mean[cell] + spread[cell] * residual
            lowest, highest = bounds[stem, zone, year]
            result[variable][rows, j] = clip_keeping_means(values, cell, lowest, highest)
    return result


def clip_keeping_means(
    values: np.ndarray, cells: np.ndarray, lowest: float, highest: float
) -> np.ndarray:
    """Return `values` within bounds, shifted in each cell to make up for what clipping moved."""
    goal = standardise(values, cells)[1]
    clipped = np.clip(values, lowest, highest)
    for _ in range(CLIPPING_PASSES):
        shift = goal - standardise(clipped, cells)[1]
        clipped = np.clip(clipped + shift[cells], lowest, highest)
    return clipped


def ranks_in_cells(values: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (rank from 0 within its cell, number of values in its cell) of each value."""
    order = np.lexsort((values, cells))
    counts = np.bincount(cells, minlength=CELLS)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(values), dtype=int)
    rank[order] = np.arange(len(values)) - starts[cells[order]]
    return rank, counts[cells]


def shape_residuals(latent: np.ndarray, cells: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Return residuals [T] of mean 0 and variance 1 in each cell, in the order of `latent`.

    `curves` [288, SHAPE_POINTS] holds each cell's ordered residuals from lowest to highest.
    """
    rank, count = ranks_in_cells(latent, cells)
    position = rank / (count - 1) * (SHAPE_POINTS - 1)
    lower = np.minimum(position.astype(int), SHAPE_POINTS - 2)
    part = position - lower
    values = (1 - part) * curves[cells, lower] + part * curves[cells, lower + 1]
    return standardise(values, cells)[0]


def latent_series(
    models: pd.DataFrame, shocks: pd.DataFrame, weekly: pd.DataFrame, seed: int
) -> np.ndarray:
    """Draw the latent Gaussian series [T, variables x zones], unit variance, over all hours.

    `models`: partial autocorrelations by variable, zone and year; `shocks`: lower triangle of the
    correlation of the shocks, one series a row; `weekly`: profile of some series by hour of the
    week. The years share one stream of shocks, so that a series does not break at New Year. NaN
    where a series has no model for the year.
    """
    from scipy.signal import lfilter

    hours = all_hours()
    names = list(shocks["series"])
    generator = np.random.default_rng(seed)
    drawn = generator.standard_normal((len(hours) + BURN_IN_H, len(names)))
    drawn = drawn @ _root(symmetric(shocks)).T
    week = hour_of_week(hours)
    series = np.full((len(hours), len(names)), np.nan)
    numbers = models.iloc[:, 3:].to_numpy(float)
    filters, shock_sd = coefficients(numbers)
    for row, (variable, zone, year) in enumerate(models.iloc[:, :3].itertuples(index=False)):
        name = f"{variable}:{zone}"
        k = names.index(name)
        inside = np.flatnonzero(hours.year == year)
        stop = BURN_IN_H + inside[-1] + 1
        denominator = np.concatenate([[1.0], -filters[row]])
        values = lfilter([shock_sd[row]], denominator, drawn[:stop, k])[BURN_IN_H + inside]
        if name in weekly:
            profile = weekly[name].to_numpy(float)
            values = profile[week[inside]] + np.sqrt(1 - (profile**2).mean()) * values
        series[inside, k] = values
    return series


def hour_of_week(time: pd.DatetimeIndex) -> np.ndarray:
    """Return the hour since Monday 0 h UTC [T], 0..167."""
    return (time.day_of_week * 24 + time.hour).to_numpy()


def symmetric(shocks: pd.DataFrame) -> np.ndarray:
    """Return the correlation matrix whose lower triangle a table of shocks holds."""
    lower = shocks.iloc[:, 1:].to_numpy(float)
    return lower + np.tril(lower, -1).T


def _root(correlation: np.ndarray) -> np.ndarray:
    """Return R with R R' = `correlation`, made positive definite with a unit diagonal.

    The symmetric root does not depend on the signs that a linear-algebra library gives to
    eigenvectors, so that a draw is the same on every machine.
    """
    values, vectors = np.linalg.eigh(correlation)
    root = (vectors * np.sqrt(np.maximum(values, 1e-6))) @ vectors.T
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def _rows_by_key(rows: pd.DataFrame, keys: int) -> dict[tuple, np.ndarray]:
    """Return the numbers of each row of a table by its first `keys` columns."""
    return {tuple(row[:keys]): row[keys:].astype(float) for row in rows.to_numpy(object)}
