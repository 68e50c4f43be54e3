"""Round-trip times between the users' and the sites' cloud regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marlin.data.fetch import cached
from marlin.data.tables import nearest
from marlin.errors import UserError

SAME_REGION_S = 0.002


def read_round_trips(cache: Path) -> pd.DataFrame:
    """Return the round trips of the fetched matrix. Source: Azure latency statistics, P50."""
    (path,) = cached(cache, "azure-rtt-p50", ["latency.csv"])
    return round_trips(pd.read_csv(path, index_col=0))


def round_trips(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return one row (from_region, to_region, rtt_ms) for each measured pair of regions.

    `matrix` holds ms from row to column. A round trip has no direction: it is the mean of both
    cells, or the one that is not empty. A pair of two empty cells is left out.
    """
    names = sorted(set(matrix.index) | set(matrix.columns))
    square = matrix.reindex(index=names, columns=names).to_numpy(float)
    rows = []
    for i, a in enumerate(names):
        for j, b in enumerate(names[i + 1 :], start=i + 1):
            both = np.array([square[i, j], square[j, i]])
            if not np.isnan(both).all():
                rows.append([a, b, float(np.nanmean(both))])
    return pd.DataFrame(rows, columns=["from_region", "to_region", "rtt_ms"])


def rtt_s(
    origins: Sequence[str], sites: Sequence[str], last_mile_s: float, rows: pd.DataFrame
) -> np.ndarray:
    """Return the round-trip time [O, D] in seconds between Azure regions, last mile included.

    `rows` are those of `round_trips`; within one region the floor SAME_REGION_S stands. Raises
    UserError for an unknown region or an unmeasured pair.
    """
    known = sorted(set(rows["from_region"]) | set(rows["to_region"]))
    for name in (*origins, *sites):
        if name not in known:
            raise UserError(
                f"network: unknown Azure region {name!r}{nearest(name, known)}; "
                f"known: {', '.join(known)}"
            )
    pairs = zip(rows["from_region"], rows["to_region"], rows["rtt_ms"], strict=True)
    seconds = {frozenset((a, b)): ms / 1000 for a, b, ms in pairs}
    result = np.empty((len(origins), len(sites)))
    for i, origin in enumerate(origins):
        for j, site in enumerate(sites):
            if origin != site and frozenset((origin, site)) not in seconds:
                raise UserError(
                    f"network: no round trip was measured between {origin} and {site}: name "
                    "another Azure region near one of them"
                )
            pair = seconds.get(frozenset((origin, site)), SAME_REGION_S)
            result[i, j] = max(pair, SAME_REGION_S) + last_mile_s
    return result


def own_rtt_s(
    origins: Sequence[str],
    sites: Sequence[str],
    last_mile_s: float,
    rtt_ms: Mapping[str, Sequence[float]],
    path: str,
) -> np.ndarray:
    """Return the round-trip time [O, D] in seconds by a fleet's own table, last mile included.

    `rtt_ms` has a row of ms for each place, columns in the same order. `path` "direct" takes the
    entry; "ring" sums adjacent entries along the shorter way round the places in their order.
    Raises UserError for a place that the table does not have.
    """
    places = list(rtt_ms)
    for name in (*origins, *sites):
        if name not in places:
            raise UserError(
                f"network: {name!r} is not in fleet.round_trips{nearest(name, places)}; "
                f"known: {', '.join(places)} (workload=paper goes with fleet=paper12)"
            )
    table = np.array([rtt_ms[name] for name in places])
    if path == "ring":
        table = around_ring(table)
    rows, columns = ([places.index(name) for name in names] for names in (origins, sites))
    return table[np.ix_(rows, columns)] / 1000 + last_mile_s


def around_ring(table: np.ndarray) -> np.ndarray:
    """Return the shorter way round a ring [N, N] from the hops between neighbours in `table`."""
    count = len(table)
    place = np.arange(count)
    hops = table[place, (place + 1) % count]
    back = table[(place + 1) % count, place]
    result = np.zeros_like(table)
    for start in range(count):
        forward = np.concatenate([[0.0], np.cumsum(np.roll(hops, -start))])
        backward = np.concatenate([[0.0], np.cumsum(np.roll(back, -start)[::-1])])
        for stop in range(count):
            steps = (stop - start) % count
            result[start, stop] = min(forward[steps], backward[count - steps] if steps else 0.0)
    return result


def known_rtt_s(origins: Sequence[str], sites: Sequence[str], rows: pd.DataFrame) -> np.ndarray:
    """Return the measured round trips [O, D] in seconds, NaN where a pair has none."""
    pairs = zip(rows["from_region"], rows["to_region"], rows["rtt_ms"], strict=True)
    seconds = {frozenset((a, b)): ms / 1000 for a, b, ms in pairs}
    return np.array(
        [
            [SAME_REGION_S if a == b else seconds.get(frozenset((a, b)), np.nan) for b in sites]
            for a in origins
        ]
    )
