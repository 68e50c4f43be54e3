"""Measured hourly signals of grid zones on the UTC hour: carbon, price, temperature, humidity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from marlin.data.fetch import cached
from marlin.data.gaps import Filled, fill
from marlin.data.places import check_zones
from marlin.data.tables import measured_zones, table
from marlin.errors import UserError

YEARS = (2023, 2024)
FIRST_HOUR = datetime(YEARS[0], 1, 1)
LAST_HOUR = datetime(YEARS[-1], 12, 31, 23)
VARIABLES = ("carbon_g_per_kwh", "price_usd_per_mwh", "drybulb_c", "relative_humidity")
CARBON_COLUMN = {"direct": "(direct)", "lifecycle": "(LCA)"}
INTERVALS_PER_HOUR = 12


@dataclass(frozen=True)
class HourlySignals:
    """Signals of Z zones over T hours; `time` holds UTC hour starts without a zone.

    `values` maps each name of VARIABLES to an array [T, Z] (g/kWh, USD/MWh, deg C, per cent).
    """

    time: pd.DatetimeIndex
    zones: tuple[str, ...]
    values: dict[str, np.ndarray]
    filled: tuple[Filled, ...]


def all_hours() -> pd.DatetimeIndex:
    """Return every UTC hour of the years that the data cover."""
    return pd.date_range(FIRST_HOUR, LAST_HOUR, freq="h")


def check_complete(signals: HourlySignals) -> HourlySignals:
    """Return `signals`; raise UserError naming zone, variable and first hour of a missing value."""
    for name, array in signals.values.items():
        missing = np.argwhere(np.isnan(array))
        if len(missing):
            row, column = missing[0]
            raise UserError(
                f"{name} of zone {signals.zones[column]} has no value at {signals.time[row]} UTC "
                "and the gap is longer than the gap policy fills (docs/data.md): choose another "
                "period or zone"
            )
    return signals


def read(cache: Path, zones: Sequence[str], hours: pd.DatetimeIndex, family: str) -> HourlySignals:
    """Read the measured signals of `zones` at `hours` (UTC) from fetched files under `cache`.

    Gaps are filled on the whole record before the hours are picked, so that a value does not
    depend on the period asked for. Raises UserError for unknown zones, missing files, and gaps
    that the policy does not fill.
    """
    check_zones(zones, measured_zones(), "measured")
    for zone in zones:
        check_price_years(zone, hours)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in VARIABLES}
    filled: list[Filled] = []
    for zone in zones:
        weather = read_weather(cache, zone)
        series = {
            "carbon_g_per_kwh": read_carbon(cache, zone, family),
            "price_usd_per_mwh": read_price(cache, zone),
            "drybulb_c": weather["drybulb_c"],
            "relative_humidity": weather["relative_humidity"],
        }
        for name in VARIABLES:
            complete, record = fill(series[name].reindex(all_hours()), zone, name)
            columns[name].append(complete.reindex(hours).to_numpy())
            filled += record
    values = {name: np.stack(columns[name], axis=1) for name in VARIABLES}
    return check_complete(HourlySignals(hours, tuple(zones), values, tuple(filled)))


def check_price_years(zone: str, hours: pd.DatetimeIndex) -> None:
    """Raise UserError where `hours` reach into a year in which a zone has no price."""
    rule = table("reference/price_series.csv").set_index("zone").loc[zone]
    years = range(int(rule["first_year"]), int(rule["last_year"]) + 1)
    beyond = sorted({int(year) for year in hours.year} - set(years))
    if beyond:
        raise UserError(
            f"price_usd_per_mwh of zone {zone} has no data in {beyond[0]}, only in "
            f"{' and '.join(map(str, years))}: choose another period or zone"
        )


def read_carbon(cache: Path, zone: str, family: str) -> pd.Series:
    """Return the average carbon intensity of a zone, g/kWh on UTC hours (hour starting).

    `family` is "direct" (operational) or "lifecycle". Source: Electricity Maps, flow-traced
    consumption mix.
    """
    parts = []
    for path in cached(cache, "electricitymaps-hourly", [_carbon_file(zone, y) for y in YEARS]):
        frame = pd.read_csv(path)
        column = next(c for c in frame.columns if CARBON_COLUMN[family] in c)
        times = pd.DatetimeIndex(pd.to_datetime(frame["Datetime (UTC)"]))
        parts.append(pd.Series(frame[column].to_numpy(float), index=times))
    return pd.concat(parts)


def read_weather(cache: Path, zone: str) -> pd.DataFrame:
    """Return dry bulb (deg C) and relative humidity (per cent) of a zone on UTC hours.

    Stamps have one fixed offset per file (also through summer time): UTC = stamp - offset. The
    year before is read as well because a UTC year starts inside the local year before it.
    Source: Open-Meteo archive (ERA5).
    """
    parts = []
    years = (YEARS[0] - 1, *YEARS)
    for path in cached(cache, "open-meteo-era5", [f"{zone}/{year}.json" for year in years]):
        record = json.loads(path.read_text())
        offset = timedelta(seconds=record["utc_offset_seconds"])
        hourly = record["hourly"]
        parts.append(
            pd.DataFrame(
                {
                    "drybulb_c": np.array(hourly["temperature_2m"], float),
                    "relative_humidity": np.array(hourly["relative_humidity_2m"], float),
                },
                index=pd.DatetimeIndex(pd.to_datetime(hourly["time"])) - offset,
            )
        )
    frame = pd.concat(parts)
    # Where the offset changed between two files an hour may be covered twice: the values agree.
    return on_the_hour(frame[~frame.index.duplicated()])


def read_sites(cache: Path, zones: Sequence[str]) -> pd.DataFrame:
    """Return latitude, longitude (degrees) and elevation (m) of each zone's weather point."""
    rows = []
    for zone in zones:
        (path,) = cached(cache, "open-meteo-era5", [f"{zone}/{YEARS[0]}.json"])
        record = json.loads(path.read_text())
        rows.append([zone, record["latitude"], record["longitude"], record["elevation"]])
    return pd.DataFrame(rows, columns=["zone", "latitude", "longitude", "elevation_m"])


def read_price(cache: Path, zone: str) -> pd.Series:
    """Return the wholesale price of a zone, USD/MWh on UTC hours (hour starting).

    Clock, currency and defects of each market: `reference/price_series.csv`. The year's mean
    exchange rate is applied by local year: `reference/exchange_rates.csv`.
    """
    rule = table("reference/price_series.csv").set_index("zone").loc[zone]
    years = range(int(rule["first_year"]), int(rule["last_year"]) + 1)
    frames = [
        pd.read_csv(path)
        for path in cached(cache, "prices-hourly-local", [f"{zone}_{year}.csv" for year in years])
    ]
    series = pd.concat(
        pd.Series(f.iloc[:, 1].to_numpy(float), index=f["Datetime"].to_numpy(str)) for f in frames
    )
    if rule["rule"] == "chile":
        series = _invert_chile(series)
    elif rule["rule"] == "interval ending":
        series = _merge_partial_hours(series)
    local_year = np.clip(series.index.str[:4].astype(int), years[0], years[-1])
    rates = {year: units_per_usd(str(rule["currency"]), year) for year in years}
    usd = series / np.array([rates[year] for year in local_year])
    utc = to_utc(usd, str(rule["clock"]), zone).to_frame("price")
    return on_the_hour(utc)["price"]


def units_per_usd(currency: str, year: int) -> float:
    """Return the mean exchange rate of a year, units of `currency` per US dollar."""
    rates = table("reference/exchange_rates.csv")
    row = rates[(rates["currency"] == currency) & (rates["year"] == year)]
    if row.empty:
        raise UserError(f"no exchange rate for {currency} in {year} in exchange_rates.csv: add it")
    return float(row["units_per_usd"].iloc[0])


def to_utc(series: pd.Series, clock: str, zone: str) -> pd.Series:
    """Return `series` (stamps as text) on naive UTC stamps, each stamp once.

    `clock`: "UTC", "UTC+hh:mm" all year, "stamped" (each stamp has its offset) or an IANA name.
    A summer-time market with 24 rows on every day holds a copy in the hour that spring skips
    (dropped) and one value for the two hours of autumn (used for both).
    """
    if clock == "stamped":
        index = pd.DatetimeIndex(pd.to_datetime(series.index, utc=True)).tz_localize(None)
        return _once(pd.Series(series.to_numpy(), index=index), zone)
    naive = pd.DatetimeIndex(pd.to_datetime(series.index))
    if clock.startswith("UTC"):
        index = naive - _fixed_offset(clock)
        return _once(pd.Series(series.to_numpy(), index=index), zone)
    passes = []
    for summer in (True, False):
        local = naive.tz_localize(clock, ambiguous=np.full(len(naive), summer), nonexistent="NaT")
        passes.append(pd.Series(series.to_numpy(), index=local.tz_convert(None)))
    both = pd.concat(passes)
    both = both[both.index.notna()]
    return both[~both.index.duplicated()].sort_index()


def on_the_hour(data: pd.DataFrame) -> pd.DataFrame:
    """Move stamps at half past (India) to the hour: the mean of the two halves around it."""
    index = pd.DatetimeIndex(data.index)
    if (index.minute == 0).all():
        return data.sort_index()
    half = pd.Timedelta(minutes=30)
    later, earlier = data.set_axis(index + half), data.set_axis(index - half)
    return ((later + earlier) / 2).dropna().sort_index()


def _carbon_file(zone: str, year: int) -> str:
    return f"{zone}_{year}_hourly.csv"


def _fixed_offset(clock: str) -> timedelta:
    if clock == "UTC":
        return timedelta(0)
    sign = -1 if clock[3] == "-" else 1
    return sign * timedelta(hours=int(clock[4:6]), minutes=int(clock[7:9]))


def _once(series: pd.Series, zone: str) -> pd.Series:
    """Drop stamps that two yearly files share, after a check that their values agree."""
    by_stamp = series.groupby(level=0)
    spread = by_stamp.max() - by_stamp.min()
    if (spread > 1e-6).any():
        raise UserError(
            f"prices of {zone}: two different values at {spread.idxmax()} UTC; the files are not "
            "the registered ones: run `marlin fetch` again"
        )
    return series[~series.index.duplicated()].sort_index()


def _merge_partial_hours(series: pd.Series) -> pd.Series:
    """Join the two partial means that AEMO's monthly files give for the first hour of a month.

    A row is the mean of the 5-minute intervals that end in the hour, and a monthly file starts
    at 00:05: its own part holds eleven intervals (not a whole number of cents), the part of the
    month before holds one.
    """
    frame = pd.DataFrame({"stamp": series.index, "price": series.to_numpy()})
    repeated = frame["stamp"].duplicated(keep=False)
    merged = {}
    for stamp, pair in frame[repeated].groupby("stamp")["price"]:
        values = pair.to_numpy()
        cents = values * 100
        eleven = np.abs(cents - np.round(cents)) > 1e-6
        one_of_each = len(values) == 2 and eleven.sum() == 1
        weights = np.where(eleven, INTERVALS_PER_HOUR - 1, 1) if one_of_each else None
        merged[stamp] = float(np.average(values, weights=weights))
    single = frame[~repeated].set_index("stamp")["price"]
    return pd.concat([single, pd.Series(merged, dtype=float)]).sort_index()


def _invert_chile(series: pd.Series) -> pd.Series:
    """Undo the tax and charges of the Chilean series: (cost + 15000 + 3000) x 1.19 CLP/MWh."""
    return (series / 1.19 - 18000).groupby(level=0).mean()
