"""Water behind a kilowatt-hour: intensity of the grid's generation and scarcity of its basin."""

from __future__ import annotations

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
    factors = table("reference/water_factors.csv").set_index("mode")["litres_per_kwh"].astype(float)
    mixes = pd.read_csv(path, keep_default_na=False)
    return water_intensity(mixes, factors, zones, years)


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


def ewif_l_per_kwh(
    zones: Sequence[str], time: pd.DatetimeIndex, hydropower: float, intensity: pd.DataFrame
) -> np.ndarray:
    """Return the water intensity of grid energy [T, Z], litres per kWh, constant in a year.

    `hydropower` is the factor of hydropower, 0 (evaporation not charged) or 17 L/kWh; `intensity`
    has the columns of `water_intensity`.
    """
    rows = intensity.set_index(["zone", "year"])
    result = np.empty((len(time), len(zones)))
    for year in np.unique(time.year):
        for column, zone in enumerate(zones):
            row = rows.loc[(zone, year)]
            value = row["without_hydropower_l_per_kwh"] + hydropower * row["hydropower_share"]
            result[time.year == year, column] = value
    return result


def aware_m3_per_m3(
    zones: Sequence[str], time: pd.DatetimeIndex, scarcity: pd.DataFrame
) -> np.ndarray:
    """Return the monthly water scarcity factor [T, Z], m3 world-equivalent per m3 consumed.

    `scarcity` has one row a zone, one column a month. Source: AWARE 2.0, non-agricultural, the
    basin of the zone.
    """
    months = scarcity.set_index("zone").loc[list(zones), list(MONTHS)]
    return months.to_numpy(float)[:, time.month - 1].T
