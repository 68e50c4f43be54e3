"""Water behind a kilowatt-hour: intensity of the grid's generation and scarcity of its basin."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marlin.data.fetch import cached
from marlin.data.tables import table
from marlin.errors import UserError
from marlin.physics.water import grid_ewif_l_per_kwh

ELECTRICITYMAPS_ZONE = {"BR-SP": "BR-CS", "CL-SIC": "CL-SEN", "DE-LU": "DE"}
HYDROPOWER = "hydro"
US_AUTHORITY = {
    "US-CAL-CISO": "CISO",
    "US-MIDA-PJM": "PJM",
    "US-NY-NYIS": "NYIS",
    "US-TEX-ERCO": "ERCO",
}
HOUR_STARTING = ("PJM",)
EIA_MODE = {
    "WND": "wind",
    "SUN": "solar",
    "WAT": "hydro",
    "OIL": "oil",
    "NG": "gas",
    "COL": "coal",
    "NUC": "nuclear",
    "OTH": "unknown",
}
SMALLEST_CELL = 14
STORAGE = ("battery discharge", "hydro discharge")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def mix_water(shares: pd.Series, factors: pd.Series) -> tuple[float, float]:
    """Return (litres per kWh with hydropower at 0, hydropower share) of an annual mix.

    `shares` sum to about 1 by mode; `factors` are litres per kWh by mode without hydropower.
    Storage gives back what the mix put in, so shares are taken over the rest of the mix.
    Raises UserError for a mode without a factor.
    """
    generation = shares.drop(labels=[m for m in STORAGE if m in shares.index])
    generation = generation / generation.sum()
    unknown = set(generation.index) - set(factors.index) - {HYDROPOWER}
    if unknown:
        raise UserError(
            f"reference/water_factors.csv has no water factor for {sorted(unknown)[0]!r}: add it"
        )
    litres = grid_ewif_l_per_kwh(generation.to_dict(), factors.to_dict(), 0.0)
    return float(litres), float(generation.get(HYDROPOWER, 0.0))


def read_water_intensity(cache: Path, zones: Sequence[str], years: Sequence[int]) -> pd.DataFrame:
    """Return the water behind the fetched annual mixes, by zone and year (`water_intensity`).

    Source: mixes of Electricity Maps, factors of `reference/water_factors.csv`.
    """
    (path,) = cached(cache, "electricitymaps-config", ["power_origin_ratios.csv"])
    mixes = pd.read_csv(path, keep_default_na=False)
    return water_intensity(mixes, _factors(), zones, years)


def water_intensity(
    mixes: pd.DataFrame, factors: pd.Series, zones: Sequence[str], years: Sequence[int]
) -> pd.DataFrame:
    """Return litres per kWh without hydropower and the hydropower share by zone and year.

    `mixes` has one row (zone_key, valid_from, mode, ratio) a mode. A year without a mix takes the
    last one before it (`mix_year`). Raises UserError for a zone that has none.
    """
    mix_years = mixes["valid_from"].str[:4].astype(int)
    rows = []
    for zone in zones:
        of_zone = mixes["zone_key"] == ELECTRICITYMAPS_ZONE.get(zone, zone)
        for year in years:
            known = mix_years[of_zone & (mix_years <= year)]
            if known.empty:
                raise UserError(
                    f"electricitymaps-config has no electricity mix of zone {zone} up to {year}: "
                    "choose another zone"
                )
            chosen = mixes[of_zone & (mix_years == known.max())]
            shares = chosen.set_index("mode")["ratio"].astype(float)
            litres, hydropower = mix_water(shares, factors)
            unknown = shares.get("unknown", 0.0)
            rows.append([zone, year, int(known.max()), litres, hydropower, unknown])
    names = ["without_hydropower_l_per_kwh", "hydropower_share", "unknown_share"]
    return pd.DataFrame(rows, columns=["zone", "year", "mix_year", *names])


def read_scarcity(cache: Path, zones: Sequence[str]) -> pd.DataFrame:
    """Return the monthly scarcity factors of `zones`, one row each. Source: AWARE 2.0."""
    (path,) = cached(cache, "aware20", ["aware20_nonagri_by_zone.csv"])
    rows = pd.read_csv(path).set_index("zone").loc[list(zones)].reset_index()
    return rows[["zone", "aware_region", "annual", *MONTHS]]


def read_mix_shape(cache: Path) -> pd.DataFrame:
    """Return the shape of the water behind the hourly US mixes of 2022 (`mix_shape`), by zone.

    Stamps of EIA are hour-ending, but for PJM's, whose sun shines an hour earlier: UTC hour starts
    are one hour before the others.
    """
    factors = _factors()
    parts = []
    for zone, authority in US_AUTHORITY.items():
        (path,) = cached(cache, "eia930-fuelmix-2022", [f"{authority}_2022_fuelmix_avgCI.csv"])
        frame = pd.read_csv(path)
        stamps = pd.DatetimeIndex(pd.to_datetime(frame["timestamp"], utc=True)).tz_localize(None)
        starts = stamps - pd.Timedelta(hours=0 if authority in HOUR_STARTING else 1)
        mix = frame[list(EIA_MODE)].rename(columns=EIA_MODE).set_axis(starts)
        shape = mix_shape(mix, factors, zone)
        shape.insert(0, "zone", zone)
        parts.append(shape)
    return pd.concat(parts, ignore_index=True)


def mix_shape(mix: pd.DataFrame, factors: pd.Series, zone: str) -> pd.DataFrame:
    """Return means of an hourly mix over the days of each month and hour, relative to the year's.

    `mix` [T, modes] holds generation by mode on UTC hour starts. `without_hydropower` is litres per
    kWh without hydropower, `hydropower` its share, both divided by the year's ratio of sums. Hours
    in which a mode is missing are left out; UserError where that leaves less than half of a cell.
    """
    known = mix.dropna()
    litres = (known.drop(columns=HYDROPOWER) * factors.reindex(known.columns)).sum(axis=1)
    total = known.sum(axis=1)
    values = pd.DataFrame(
        {
            "without_hydropower": litres / total / (litres.sum() / total.sum()),
            "hydropower": known[HYDROPOWER] / total / (known[HYDROPOWER].sum() / total.sum()),
        }
    )
    time = pd.DatetimeIndex(values.index)
    cells = values.groupby([time.month.rename("month"), time.hour.rename("hour")])
    if len(cells) < 12 * 24 or cells.size().min() < SMALLEST_CELL:
        raise UserError(
            f"eia930-fuelmix-2022: {zone} lacks more than half of the days of a month and hour: "
            "the file is not complete; run `marlin fetch eia930-fuelmix-2022` again, or choose "
            "signals.us_mix=annual"
        )
    return cells.mean().reset_index()


def ewif_l_per_kwh(
    zones: Sequence[str],
    time: pd.DatetimeIndex,
    hydropower: float,
    intensity: pd.DataFrame,
    shape: pd.DataFrame | None = None,
) -> np.ndarray:
    """Return the water intensity of grid energy [T, Z], litres per kWh.

    `hydropower` is the factor of hydropower, 0 (evaporation not charged) or 17 L/kWh; `intensity`
    has the columns of `water_intensity` and decides the mean of each year. A zone in `shape`
    (`read_mix_shape`) follows it over months and hours, others are constant within a year.
    """
    rows = intensity.set_index(["zone", "year"])
    shapes = {} if shape is None else dict(list(shape.groupby("zone")))
    result = np.empty((len(time), len(zones)))
    for year in np.unique(time.year):
        inside = time.year == year
        for column, zone in enumerate(zones):
            row = rows.loc[(zone, year)]
            parts = np.array([row["without_hydropower_l_per_kwh"], row["hydropower_share"]])
            if zone in shapes:
                parts = parts * shape_of_year(shapes[zone], year, time[inside])
            result[inside, column] = parts @ [1.0, hydropower]
    return result


def shape_of_year(shape: pd.DataFrame, year: int, time: pd.DatetimeIndex) -> np.ndarray:
    """Return the factors [T, 2] of `mix_shape` at `time`, with mean 1 over all hours of `year`."""
    cells = shape.sort_values(["month", "hour"])[["without_hydropower", "hydropower"]]
    values = cells.to_numpy(float).reshape(12, 24, 2)
    days = [monthrange(year, month)[1] for month in range(1, 13)]
    mean = np.average(values.mean(axis=1), axis=0, weights=days)
    return (values / mean)[time.month - 1, time.hour]


def _factors() -> pd.Series:
    """Return litres per kWh by mode, without hydropower."""
    rows = table("reference/water_factors.csv").set_index("mode")
    return rows["litres_per_kwh"].astype(float)


def aware_m3_per_m3(
    zones: Sequence[str], time: pd.DatetimeIndex, scarcity: pd.DataFrame
) -> np.ndarray:
    """Return the monthly water scarcity factor [T, Z], m3 world-equivalent per m3 consumed.

    `scarcity` has one row a zone, one column a month. Source: AWARE 2.0, non-agricultural, the
    basin of the zone.
    """
    months = scarcity.set_index("zone").loc[list(zones), list(MONTHS)]
    return months.to_numpy(float)[:, time.month - 1].T
