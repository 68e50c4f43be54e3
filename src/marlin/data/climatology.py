"""Hourly signals drawn from embedded climatologies: right means, spread and autocorrelation.

Every (variable, zone) has a latent Gaussian series: an autoregression whose shocks are correlated
across zones and variables. Within a month x hour-of-day cell, the ranks of the latent values pick
from the cell's shape (a curve of ordered residuals, chosen by the skewness of the cell, so that
price spikes stay rare and large), which is scaled by the measured mean and spread of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from marlin.data.signals import VARIABLES, HourlySignals, all_hours
from marlin.data.tables import check_zones, embedded_zones, table
from marlin.errors import UserError

SEED = 2023_2024
ORDER = 25
BURN_IN_H = 2000
CELLS = 12 * 24
SHAPE_POINTS = 31
CLIPPING_PASSES = 8
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
    zone, and for a zone without a price in the year asked for.
    """
    known = embedded_zones()
    check_zones(zones, known, "embedded")
    drawn = _draw(family)
    rows = all_hours().get_indexer(hours)
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


@cache
def _draw(family: str) -> dict[str, np.ndarray]:
    """Return every variable over all hours and all known zones, [T, Z] each."""
    hours = all_hours()
    latent = latent_series(
        hours,
        table("embedded/autoregression.csv"),
        table("embedded/shock_correlation.csv"),
    )
    zones = embedded_zones()
    result = {name: np.full((len(hours), len(zones)), np.nan) for name in VARIABLES}
    shapes = _rows_by_key("embedded/shapes.csv", 2)
    bounds = _rows_by_key("embedded/bounds.csv", 3)
    for i, variable in enumerate(VARIABLES):
        stem = column_of(variable, family)
        for _, cells in table(STATISTICS[variable]).groupby(["zone", "year"]):
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
    hours: pd.DatetimeIndex, models: pd.DataFrame, shocks: pd.DataFrame
) -> np.ndarray:
    """Draw the latent Gaussian series [T, variables x zones], unit variance, from the fixed seed.

    `models`: one autoregression a row (variable, zone, year, shock sd, coefficients); `shocks`:
    lower triangle of the correlation of the shocks, one series a row. The years share one stream
    of shocks, so that a series does not break at New Year.
    """
    from scipy.signal import lfilter

    lower = shocks.iloc[:, 1:].to_numpy(float)
    correlation = lower + np.tril(lower, -1).T
    generator = np.random.default_rng(SEED)
    drawn = generator.standard_normal((len(hours) + BURN_IN_H, len(correlation)))
    drawn = drawn @ _root(correlation).T
    series = np.empty((len(hours), len(correlation)))
    for year, rows in models.groupby("year"):
        inside = np.flatnonzero(hours.year == year)
        stop = BURN_IN_H + inside[-1] + 1
        for k, row in enumerate(rows.iloc[:, 3:].to_numpy(float)):
            denominator = np.concatenate([[1.0], -row[1:]])
            filtered = lfilter([row[0]], denominator, drawn[:stop, k])
            series[inside, k] = filtered[BURN_IN_H + inside]
    return series


def _root(correlation: np.ndarray) -> np.ndarray:
    """Return R with R R' = `correlation`, made positive definite with a unit diagonal.

    The symmetric root does not depend on the signs that a linear-algebra library gives to
    eigenvectors, so that a draw is the same on every machine.
    """
    values, vectors = np.linalg.eigh(correlation)
    root = (vectors * np.sqrt(np.maximum(values, 1e-6))) @ vectors.T
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def _rows_by_key(name: str, keys: int) -> dict[tuple, np.ndarray]:
    """Return the numbers of each row of a table by its first `keys` columns."""
    rows = table(name).to_numpy(object)
    return {tuple(row[:keys]): row[keys:].astype(float) for row in rows}
