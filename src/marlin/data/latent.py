"""Fit the latent series of the embedded climatologies to the measured years.

Cells keep means and spreads by themselves (`climatology`); what is fitted here is when things
happen: the weekly profile, one autoregression per (variable, zone, year) and the correlation of
their shocks. Ranks, shapes and bounds change autocorrelations, heavy tails most of all, so those
of the latent series are corrected until the *drawn* series has the measured ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from tqdm import tqdm

from marlin.data import autoregression, climatology, signals

ORDER = 49
WEEKLY_VARIABLES = ("carbon_g_per_kwh", "price_usd_per_mwh")
WEEKLY_SMOOTHING_H = 3.0
WEEKLY_DIGITS, PARTIAL_DIGITS, SHOCK_DIGITS = 2, 4, 3
JOINT_ROUNDS, SINGLE_ROUNDS = 40, 160
SPECTRUM_STEPS = np.linspace(0.3, 0.1, JOINT_ROUNDS + SINGLE_ROUNDS)
CORRELATION_STEP, WEEKLY_STEP = 0.5, 0.5
WEEKLY_FACTORS = (0.2, 1.5)
SMALLEST_POWER = 1e-6
MAX_CORRELATION = 0.98
LAGS_COUNTED = [1, 24]
Tables = dict[str, pd.DataFrame]


def fit(measured: Tables, residuals: Tables, tables: Tables) -> Tables:
    """Return the tables of autoregressions, shocks and weekly profiles by file name.

    `measured` and `residuals` hold a record [T, Z] a column stem; `tables` the cell tables by
    file name. Each round draws all years from the default seed and multiplies the spectrum of every
    autoregression by a power of (measured / drawn) spectrum of the deviations from the cell means.
    The first JOINT_ROUNDS also move the correlation of the shocks by what the drawn deviations
    lack, and scale the weekly profiles. Of the rounds after that, each series keeps its best.
    Source of the idea: Schreiber and Schmitz, Physical Review Letters 77 (1996) 635.
    """
    scores = score_table(residuals)
    profile = weekly_profiles(scores)
    factor = np.ones(profile.shape[1])
    goal = deviations(series_of(measured))
    keys = [
        (name, year)
        for name in goal
        for year in signals.YEARS
        if goal.loc[str(year), name].notna().all()
    ]
    wanted, wanted_correlation = autocorrelations(goal, keys), correlation(goal)
    wanted_weekly = weekly_strength(goal, profile)
    wanted_spectrum = autoregression.spectrum(wanted)
    share = deviation_share(measured, goal, keys)
    power = autoregression.spectrum(autocorrelations(scores, keys))
    shock = np.clip(correlation(scores), -MAX_CORRELATION, MAX_CORRELATION)
    best, least = np.empty((len(keys), ORDER)), np.full(len(keys), np.inf)
    for done, step in enumerate(tqdm(SPECTRUM_STEPS, desc="fitting the latent series")):
        partials = autoregression.partial(autoregression.of_spectrum(power, ORDER))
        partials = partials.round(PARTIAL_DIGITS)
        models, shocks = model_table(keys, partials), shock_table(list(scores), shock)
        weekly = (profile * factor).round(WEEKLY_DIGITS)
        drawn = deviations(draw(models, shocks, weekly, tables))
        found = autocorrelations(drawn, keys)
        if done < JOINT_ROUNDS:
            excess = np.maximum(weekly_strength(drawn, profile) / wanted_weekly, 0.5)
            factor = np.clip(factor * excess**-WEEKLY_STEP, *WEEKLY_FACTORS)
            shock += CORRELATION_STEP * (wanted_correlation - correlation(drawn))
            shock = np.clip(shock, -MAX_CORRELATION, MAX_CORRELATION)
            np.fill_diagonal(shock, 1.0)
        else:
            lack = share[:, None] * np.abs(found - wanted)
            error = lack[:, LAGS_COUNTED].max(axis=1) + 0.25 * lack.max(axis=1)
            better = error < least
            best[better], least[better] = partials[better], error[better]
        power = power * (wanted_spectrum / autoregression.spectrum(found)) ** step
        power = np.maximum(power / power.mean(axis=1, keepdims=True), SMALLEST_POWER)
    return {
        _file(climatology.AUTOREGRESSION): model_table(keys, best),
        _file(climatology.SHOCKS): shock_table(list(scores), shock),
        _file(climatology.WEEKLY): weekly,
    }


def draw(
    models: pd.DataFrame, shocks: pd.DataFrame, weekly: pd.DataFrame, tables: Tables
) -> pd.DataFrame:
    """Return the drawn signals (direct carbon), one column a series as in `series_of`."""
    latent = climatology.latent_series(models, shocks, weekly, climatology.SEED)
    values = climatology.signals_of(latent, "direct", lambda name: tables[_file(name)])
    columns = np.concatenate([values[name] for name in signals.VARIABLES], axis=1)
    return pd.DataFrame(columns, index=signals.all_hours(), columns=shocks["series"])


def series_of(record: Tables) -> pd.DataFrame:
    """Return a record as one frame with a column `variable:zone` a series (direct carbon)."""
    return pd.DataFrame(
        {
            f"{variable}:{zone}": values
            for variable in signals.VARIABLES
            for zone, values in record[climatology.column_of(variable, "direct")].items()
        }
    )


def deviations(series: pd.DataFrame) -> pd.DataFrame:
    """Return the series less their means by month and hour of each year."""
    time = pd.DatetimeIndex(series.index)
    cell = time.year * climatology.CELLS + climatology.cell_of(time)
    return series - series.groupby(cell).transform("mean")


def deviation_share(
    measured: Tables, deviation: pd.DataFrame, keys: list[tuple[str, int]]
) -> np.ndarray:
    """Return the share [K] of a year's variance that is not in the cell means."""
    series = series_of(measured)
    parts = [
        deviation.loc[str(year), name].var() / series.loc[str(year), name].var()
        for name, year in keys
    ]
    return np.array(parts)


def autocorrelations(series: pd.DataFrame, keys: list[tuple[str, int]]) -> np.ndarray:
    """Return autocorrelations [K, ORDER + 1] of the (series, year) of `keys`."""
    years = {year: series.loc[str(year)] for year in signals.YEARS}
    rows = [autoregression.autocorrelation(years[y][name].to_numpy(), ORDER) for name, y in keys]
    return np.stack(rows)


def correlation(series: pd.DataFrame) -> np.ndarray:
    """Return the correlation of every pair of series over the hours that both know."""
    values = series.to_numpy()
    known = np.isfinite(values)
    counts = known.astype(float).T @ known
    filled = np.where(known, values - np.nanmean(values, axis=0), 0.0)
    spread = np.sqrt((filled**2).sum(axis=0) / known.sum(axis=0))
    return filled.T @ filled / counts / np.outer(spread, spread)


def score_table(residuals: Tables) -> pd.DataFrame:
    """Return the Gaussian scores [T, variables x zones] of the residuals, unit variance."""
    from scipy.special import ndtri

    hours = signals.all_hours()
    frame = series_of(residuals)
    scores = frame * np.nan
    for name in frame:
        for year in signals.YEARS:
            inside = np.flatnonzero(hours.year == year)
            values = frame[name].to_numpy()[inside]
            if np.isnan(values).any():
                continue
            rank, count = climatology.ranks_in_cells(values, climatology.cell_of(hours[inside]))
            scores.iloc[inside, scores.columns.get_loc(name)] = ndtri((rank + 0.5) / count)
    return scores / scores.std()


def weekly_profiles(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the smoothed mean score by UTC hour of the week, less its mean by hour of day."""
    week = climatology.hour_of_week(pd.DatetimeIndex(scores.index))
    columns = [name for name in scores if str(name).startswith(WEEKLY_VARIABLES)]
    mean = scores[columns].groupby(week).mean()
    shift = np.arange(climatology.WEEK_H)
    distance = np.minimum(shift, climatology.WEEK_H - shift)
    kernel = np.exp(-0.5 * (distance / WEEKLY_SMOOTHING_H) ** 2)
    smoothing = np.fft.rfft(kernel / kernel.sum())[:, None]
    smooth = np.fft.irfft(np.fft.rfft(mean.to_numpy(), axis=0) * smoothing, axis=0)
    by_day = smooth.reshape(7, 24, -1)
    profile = (by_day - by_day.mean(axis=0)).reshape(climatology.WEEK_H, -1)
    return pd.DataFrame(profile, columns=columns)


def weekly_strength(deviation: pd.DataFrame, profile: pd.DataFrame) -> np.ndarray:
    """Return how much of each weekly profile is in the deviations, in their standard deviations."""
    week = climatology.hour_of_week(pd.DatetimeIndex(deviation.index))
    values = deviation[profile.columns]
    return (values * profile.to_numpy()[week]).mean().to_numpy() / values.std().to_numpy()


def model_table(keys: list[tuple[str, int]], partials: np.ndarray) -> pd.DataFrame:
    """Return partial autocorrelations [K, ORDER] as a table with their keys."""
    index = pd.DataFrame(
        [[*name.split(":"), year] for name, year in keys], columns=["variable", "zone", "year"]
    )
    lags = [f"lag{k}" for k in range(1, ORDER + 1)]
    return pd.concat([index, pd.DataFrame(partials, columns=lags)], axis=1)


def shock_table(names: list[str], shock: np.ndarray) -> pd.DataFrame:
    """Return the lower triangle of the correlation of shocks; cells above the diagonal are 0."""
    frame = pd.DataFrame(np.tril(shock).round(SHOCK_DIGITS), columns=names)
    frame.insert(0, "series", names)
    return frame


def _file(name: str) -> str:
    return name.removeprefix("embedded/")
