"""How close the embedded draws come to the measured years: numbers of what is compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from marlin.data import climatology, signals
from marlin.data.psychrometrics import wetbulb_c
from marlin.data.tables import cautions, table

OTHER_SEEDS = range(1, 6)
WETBULB = "wetbulb_c"
CORRELATED = ("carbon_g_per_kwh", "price_usd_per_mwh", WETBULB)
LAGS = (1, 24)


def with_wetbulb(frames: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return frames of series `variable:zone` with the wet bulb of every zone beside them."""
    elevation = table("embedded/sites.csv").set_index("zone")["elevation_m"]
    together = pd.concat(frames)
    added = {
        f"{WETBULB}:{zone}": wetbulb_c(
            together[f"drybulb_c:{zone}"].to_numpy(),
            together[f"relative_humidity:{zone}"].to_numpy(),
            float(elevation[zone]),
        )
        for zone in elevation.index
    }
    parts = np.split(pd.DataFrame(added, columns=list(added)).to_numpy(), len(frames))
    return [
        pd.concat([frame, pd.DataFrame(part, frame.index, columns=list(added))], axis=1)
        for frame, part in zip(frames, parts, strict=True)
    ]


def drawn_series(seed: int = climatology.SEED) -> pd.DataFrame:
    """Return what the package draws from a seed, all hours, one column `variable:zone` a series."""
    drawn = climatology.draw("direct", seed)
    zones = sorted(table("embedded/sites.csv")["zone"])
    columns = [f"{variable}:{zone}" for variable in signals.VARIABLES for zone in zones]
    values = np.concatenate([drawn[name] for name in signals.VARIABLES], axis=1)
    return pd.DataFrame(values, index=signals.all_hours(), columns=columns)


def agreement(measured: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """Return one row a variable, zone and year: what was measured, and how far the draw is off.

    Errors of means by month and hour are the largest, relative to the mean size of the measured
    ones; that of the spread is relative; autocorrelations are differences.
    """
    rows = []
    cautioned = cautions(table("embedded/sites.csv")["zone"])
    for variable, zone, year, want, have in _pairs(measured, drawn):
        row: dict[str, object] = {"variable": variable, "zone": zone, "year": year}
        row |= {"core": int(zone not in cautioned), "mean": want.mean(), "sd": want.std()}
        for unit in ("month", "hour"):
            m, d = (s.groupby(getattr(_time(s), unit)).mean() for s in (want, have))
            row[f"{unit}_mean_error"] = ((d - m).abs() / m.abs().mean()).max()
        row["sd_error"] = have.std() / want.std() - 1
        for lag in LAGS:
            row[f"lag{lag}"] = autocorrelation(want, lag)
            row[f"lag{lag}_error"] = autocorrelation(have, lag) - autocorrelation(want, lag)
        for name, series in (("weekend", want), ("weekend_drawn", have)):
            week = _time(series).day_of_week >= 5
            row[name] = series[week].mean() / series[~week].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def spread_over_seeds(measured: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation of autocorrelation errors over OTHER_SEEDS, by series.

    What the tables give on seeds that they were not calibrated on; wet bulb is left out.
    """
    runs = []
    for seed in OTHER_SEEDS:
        drawn = drawn_series(seed)
        for variable, zone, year, want, have in _pairs(measured[drawn.columns], drawn):
            row: dict[str, object] = {"variable": variable, "zone": zone, "year": year}
            for lag in LAGS:
                error = autocorrelation(have, lag) - autocorrelation(want, lag)
                row[f"lag{lag}_error_seeds"] = error
            runs.append(row)
    grouped = pd.DataFrame(runs).groupby(["variable", "zone", "year"]).agg(["mean", "std"])
    grouped.columns = [f"{name}_{part}" for name, part in grouped.columns]
    return grouped.reset_index()


def correlations(measured: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """Return the correlation of each pair of zones over both years, measured and drawn."""
    zones = sorted(table("embedded/sites.csv")["zone"])
    rows = []
    for variable in CORRELATED:
        columns = [f"{variable}:{zone}" for zone in zones]
        want, have = (frame[columns].corr().to_numpy() for frame in (measured, drawn))
        for i, j in zip(*np.triu_indices(len(zones), 1), strict=True):
            rows.append([variable, zones[i], zones[j], want[i, j], have[i, j]])
    return pd.DataFrame(rows, columns=["variable", "zone", "other", "measured", "drawn"])


def autocorrelation(series: pd.Series, lag: int) -> float:
    """Return the autocorrelation of a series at a lag in hours."""
    x = series.to_numpy() - series.mean()
    return float((x[:-lag] * x[lag:]).sum() / (x * x).sum())


def _pairs(
    measured: pd.DataFrame, drawn: pd.DataFrame
) -> Iterator[tuple[str, str, int, pd.Series, pd.Series]]:
    for year in signals.YEARS:
        wanted, had = measured.loc[str(year)], drawn.loc[str(year)]
        for name in measured:
            variable, zone = str(name).split(":")
            if wanted[name].notna().all():
                yield variable, zone, year, wanted[name], had[name]


def _time(series: pd.Series) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(series.index)
