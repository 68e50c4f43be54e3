"""Grid figures that a fleet gives itself, and those that exist by country and year alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from marlin.config import Site
from marlin.data.tables import table
from marlin.data.workload import local_minute_of_week
from marlin.errors import UserError
from marlin.physics.price import time_of_use_usd_per_mwh

MARGINAL = "marginal"


def replace_signals(dataset: xr.Dataset, sites: Sequence[Site], time: pd.DatetimeIndex) -> None:
    """Put the sites' own figures in the place of their zones' in `dataset` [time, site]."""
    for column, site in enumerate(sites):
        own = site.grid
        for name, value in (
            ("carbon_g_per_kwh", own.carbon_g_per_kwh),
            ("ewif_l_per_kwh", own.ewif_l_per_kwh),
        ):
            if value is not None:
                dataset[name][:, column] = value
        if own.tariff is not None:
            hour = (local_minute_of_week(time, own.tariff.timezone) // 60 % 24).astype(int)
            prices = time_of_use_usd_per_mwh(hour, own.tariff.usd_per_mwh())
            dataset["price_usd_per_mwh"][:, column] = prices


def marginal_g_per_kwh(zones: Sequence[str]) -> np.ndarray:
    """Return the annual marginal carbon intensity of each zone's country [Z], g/kWh.

    Raises UserError, which lists the zones that have one, for a zone that has none.
    Source: UNFCCC harmonised grid factors of 2021, as carried by CO2.js.
    """
    factors = table("reference/marginal_carbon.csv").set_index("zone")["g_per_kwh"]
    for zone in zones:
        if zone not in factors.index:
            raise UserError(
                f"signals.carbon_family=marginal: there is no marginal factor of zone {zone!r}; "
                f"there is one for {', '.join(factors.index)}: choose among them or another family"
            )
    return factors.loc[list(zones)].to_numpy(float)
