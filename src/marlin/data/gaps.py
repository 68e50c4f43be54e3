"""Gaps in hourly series: what is filled, how, and what stops a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

DAY = 24


@dataclass(frozen=True)
class GapPolicy:
    """How many missing hours in a row a series may have and how they are filled.

    Up to `interpolate_h` hours are filled on a straight line between the hours on both sides;
    up to `copy_day_h` hours, and shorter gaps at an end of the series, take the same hours of
    the day before (of the day after where there is none). Longer gaps stay missing.
    """

    interpolate_h: int
    copy_day_h: int


POLICIES = {
    "carbon_g_per_kwh": GapPolicy(0, 0),
    "price_usd_per_mwh": GapPolicy(3, 24),
    "drybulb_c": GapPolicy(3, 12),
    "relative_humidity": GapPolicy(3, 12),
}


@dataclass(frozen=True)
class Filled:
    """Hours of one variable of one zone that were filled, for the record."""

    zone: str
    variable: str
    first: str
    hours: int
    method: str


def runs_of_missing(values: np.ndarray) -> list[tuple[int, int]]:
    """Return [start, stop) of every run of NaN in `values` [T]."""
    missing = np.concatenate([[False], np.isnan(values), [False]])
    edges = np.flatnonzero(missing[1:] != missing[:-1])
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def fill(series: pd.Series, zone: str, variable: str) -> tuple[pd.Series, list[Filled]]:
    """Fill the short gaps of an hourly `series` under the policy of its `variable`.

    Gaps beyond the policy are left as NaN, for the caller to refuse if its period meets them.
    """
    policy = POLICIES[variable]
    values = series.to_numpy(dtype=float, copy=True)
    record = []
    for start, stop in runs_of_missing(values):
        length = stop - start
        inside = start > 0 and stop < len(values)
        if inside and length <= policy.interpolate_h:
            line = np.linspace(values[start - 1], values[stop], length + 2)
            values[start:stop], method = line[1:-1], "linear"
        elif length <= policy.copy_day_h and _is_known(values, start - DAY, stop - DAY):
            values[start:stop], method = values[start - DAY : stop - DAY], "day before"
        elif length <= policy.copy_day_h and _is_known(values, start + DAY, stop + DAY):
            values[start:stop], method = values[start + DAY : stop + DAY], "day after"
        else:
            continue
        record.append(Filled(zone, variable, str(series.index[start]), length, method))
    return pd.Series(values, index=series.index), record


def _is_known(values: np.ndarray, start: int, stop: int) -> bool:
    inside = start >= 0 and stop <= len(values)
    return inside and not np.isnan(values[start:stop]).any()
