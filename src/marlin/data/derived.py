"""The small tables behind a scenario: from fetched files, or as the package carries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from marlin.data import network, signals, water, workload
from marlin.data.fetch import PACKAGE, origin_of
from marlin.data.places import check_zones
from marlin.data.tables import embedded_zones, measured_zones, table
from marlin.errors import UserError


@dataclass(frozen=True)
class Derived:
    """One table a field; in the package it is `embedded/<field>.csv`, with rounded numbers.

    `sites`, `ewif` and `aware` have rows by zone, `ewif_shape` by US zone, month and hour, `rtt` by
    pair of Azure regions, `token_moments` and `token_quantiles` by token year and service,
    `token_cdf` by service, `weekly_rates` by quarter hour of the week.
    """

    sites: pd.DataFrame
    ewif: pd.DataFrame
    ewif_shape: pd.DataFrame
    aware: pd.DataFrame
    rtt: pd.DataFrame
    token_moments: pd.DataFrame
    token_quantiles: pd.DataFrame
    token_cdf: pd.DataFrame
    weekly_rates: pd.DataFrame


def embedded(zones: Sequence[str]) -> Derived:
    """Return the tables of the package; UserError for a zone that they do not hold."""
    check_zones(zones, embedded_zones(), "embedded")
    return Derived(**{field.name: packaged(field.name) for field in fields(Derived)})


def measured(cache: Path, zones: Sequence[str]) -> Derived:
    """Compute the tables of `zones` from the fetched files under `cache`.

    A source that `marlin fetch` recorded as one that the package stands for gives the table of
    the package. Raises UserError for an unknown zone, a file that is missing or damaged, and a
    value that is missing.
    """
    check_zones(zones, measured_zones(), "measured")
    years = signals.YEARS

    def of(source: str, name: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        if origin_of(cache, source) == PACKAGE:
            return packaged(name)
        return complete(read(), source)

    week = "azure-llm-2024-week"
    token_cdf = of(week, "token_cdf", lambda: workload.read_token_cdf(cache))
    moments, quantiles = workload.read_token_statistics(cache, token_cdf)
    return Derived(
        sites=complete(signals.read_sites(cache, zones), "open-meteo-era5"),
        ewif=of(
            "electricitymaps-config",
            "ewif",
            lambda: water.read_water_intensity(cache, zones, years),
        ),
        ewif_shape=of("eia930-fuelmix-2022", "ewif_shape", lambda: water.read_mix_shape(cache)),
        aware=of("aware20", "aware", lambda: water.read_scarcity(cache, zones)),
        rtt=of("azure-rtt-p50", "rtt", lambda: network.read_round_trips(cache)),
        token_moments=complete(moments, "azure-llm-2023"),
        token_quantiles=complete(quantiles, "azure-llm-2023"),
        token_cdf=token_cdf,
        weekly_rates=of(week, "weekly_rates", lambda: workload.read_weekly_rates(cache)),
    )


def packaged(name: str) -> pd.DataFrame:
    """Return the table `name` of the package."""
    return table(f"embedded/{name}.csv")


def complete(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return `frame`; raise UserError that names the first missing value in it."""
    missing = frame.isna()
    if missing.any(axis=None):
        row = int(missing.any(axis=1).to_numpy().argmax())
        column = str(frame.columns[missing.iloc[row].to_numpy().argmax()])
        raise UserError(
            f"{source}: {column} has no value for {frame.columns[0]} {frame.iloc[row, 0]}: the "
            f"file is not complete; run `marlin fetch {source}` again or choose another zone"
        )
    return frame
