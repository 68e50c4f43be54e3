"""Very large pools by sample: some of their replicas, and how far the sample may be off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from marlin.errors import UserError
from marlin.serving.replay import kernel
from marlin.serving.replay.cluster import Cluster, Dispatch, Records


@njit(cache=True)
def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) for request `index`: the finaliser of SplitMix64, so no state is kept."""
    x = np.uint64(index) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return float(x >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def _draw_cells(count, cells, seed):
    """Cell of each of `count` requests."""
    drawn = np.empty(count, np.int64)
    for n in range(count):
        drawn[n] = int(cells * uniform(seed, n))
    return drawn


@dataclass(frozen=True)
class Estimate:
    """A value of the whole pool from a sample of its cells, and its standard error."""

    value: float
    standard_error: float


def sample_pool(
    engine: Records,
    replicas: int,
    cells: int,
    simulated: int,
    arrival_s: NDArray[np.float64],
    prompt_tokens: NDArray[np.int32],
    output_tokens: NDArray[np.int32],
    dispatch: Dispatch = "jsq",
    seed: int = 0,
) -> dict[str, Estimate]:
    """Mean TTFT, TPOT and E2E (s) and busy replicas of a pool, from `simulated` of its cells.

    The pool of `replicas` is cut into equal cells; chance (`seed`) sends each request to one, and
    within a cell it is dispatched as usual, so cells are alike in distribution. The standard error
    is that of a mean over cells drawn without replacement from `cells`: none when all are
    simulated. Raises `UserError` when the numbers do not fit.
    """
    if replicas % cells or not 2 <= simulated <= cells:
        raise UserError(
            f"replay: {replicas} replicas in {cells} cells, {simulated} of them simulated: "
            "cells must divide the replicas, and 2 or more of them be simulated"
        )
    cell = _draw_cells(len(arrival_s), cells, seed)
    taken = cell < simulated
    sizes = np.full((simulated, 1), replicas // cells)
    cluster = Cluster(sizes, [[engine]] * simulated, np.ones((simulated, 1)), dispatch)
    rows = cluster.serve(arrival_s[taken], prompt_tokens[taken], output_tokens[taken], cell[taken])
    rows = rows[rows["status"] == kernel.SERVED]
    lane, count = rows["lane"], np.bincount(rows["lane"], minlength=simulated)
    if (count == 0).any():
        raise UserError(f"replay: too few requests for {cells} cells; take fewer cells")

    def of(seconds: NDArray[np.float64]) -> Estimate:
        return _estimate(np.bincount(lane, seconds, simulated) / count, cells)

    gaps = np.maximum(rows["output"] - 1, 1)
    busy_s = cluster.books[:, :2].sum(axis=1).reshape(simulated, -1).sum(axis=1)
    busy = _estimate(busy_s / (rows["finish"].max() - arrival_s[0]), cells)
    return {
        "ttft_s": of(rows["first"] - rows["arrival"]),
        "tpot_s": of((rows["finish"] - rows["first"]) / gaps),
        "e2e_s": of(rows["finish"] - rows["arrival"]),
        "busy_replicas": Estimate(cells * busy.value, cells * busy.standard_error),
    }


def _estimate(by_cell: NDArray[np.float64], cells: int) -> Estimate:
    """Mean over the simulated cells and its standard error with finite-population correction."""
    variance = by_cell.var(ddof=1) * (1 - len(by_cell) / cells) / len(by_cell)
    return Estimate(float(by_cell.mean()), float(np.sqrt(variance)))
