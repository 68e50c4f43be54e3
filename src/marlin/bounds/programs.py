"""The linear program of energy over a day, and what it shares with that of routes.

What makes its value a lower bound is in docs/bounds.md. Axes: T epochs, D sites, G node types,
K classes of work; a pool is a site and a node type, P = D G; C classes of requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, linprog
from scipy.sparse import coo_array, csr_array, diags_array, eye_array, hstack, kron, vstack

from marlin.bounds.work import Work
from marlin.errors import UserError
from marlin.fleet.simulator import JOULES_PER_KWH

INFEASIBLE = 2  # status of scipy
TOLERANCE = 1e-6  # relative: what HiGHS may be off by, and more; taken off every bound


@dataclass(frozen=True)
class Day:
    """A day as the programs see it."""

    work: Work
    epoch_s: float
    demand_per_s: np.ndarray  # [T, K] units of work that arrive
    nodes: np.ndarray  # [T, D, G] that may work
    floor_w: np.ndarray  # [T, D] IT power that is drawn whatever is served
    ceiling_w: np.ndarray  # [T, D] IT power that is never passed
    carried: np.ndarray  # [T, K] units that may be left for the next epoch,
    carried_per_done: np.ndarray  # [T] and how many more for each that is done
    it_factors: np.ndarray  # [3, T, D] carbon_kg, water_l and cost_usd of a kWh of IT energy

    @property
    def kwh_per_w(self) -> float:
        """Energy of an epoch at one watt."""
        return self.epoch_s / JOULES_PER_KWH

    def it_kwh(self, factor: np.ndarray, drawn_w: np.ndarray) -> np.ndarray:
        """IT energy [T, D] that bounds `factor` [T, D] times energy from below.

        `drawn_w` [T, D] is above the floor. Where the factor is negative, it is the most there is.
        """
        least_w = self.floor_w + drawn_w
        return self.kwh_per_w * np.where(factor < 0.0, self.ceiling_w, least_w)


def least_energy(day: Day, factor: np.ndarray, unserved_share: float = 0.0) -> np.ndarray:
    """Power above the floor [T, D] that does all work at the least `factor` [T, D] times energy.

    Work may be left to the next epoch within what `day` says; a share of the day's units, of all
    classes together, need not be done.
    """
    epochs, classes = day.demand_per_s.shape
    sites, types = day.nodes.shape[1:]
    count, pools = epochs * classes, sites * types
    fastest = day.work.per_node_s.max(axis=0)  # work is counted in nodes of the fastest type
    size = np.tile(fastest * day.epoch_s, epochs)
    speed = np.tile(day.work.per_node_s / fastest, (sites, 1))  # [P, K]
    done = kron(eye_array(epochs), csr_array(np.hstack([np.diag(row) for row in speed])))
    full = kron(eye_array(epochs * pools), np.ones((1, classes)))
    later = eye_array(count) - eye_array(count, k=-classes)
    demand, weight = (day.demand_per_s * day.epoch_s).ravel() / size, size / size.max()
    cost = factor.clip(min=0.0)[:, :, None, None] * day.work.work_w
    left = diags_array(np.repeat(day.carried_per_done, classes)) @ done
    none = coo_array((1, cost.size + count))
    limit = np.full(cost.size + 2 * count, np.inf)
    limit[-count:] = np.inf if unserved_share else 0.0
    found = solved(
        np.concatenate([cost.ravel() / (cost.max() or 1.0), np.zeros(2 * count)]),
        A_eq=hstack([done, later, eye_array(count)]),
        b_eq=demand,
        A_ub=vstack(
            [
                hstack([full, coo_array((epochs * pools, 2 * count))]),
                hstack([-left, eye_array(count), coo_array((count, count))]),
                hstack([none, coo_array(weight[None])]),
            ]
        ),
        b_ub=np.concatenate(
            [
                day.nodes.ravel(),
                day.carried.ravel() / size,
                [unserved_share * float(demand @ weight)],
            ]
        ),
        bounds=np.stack([np.zeros_like(limit), limit], axis=1),
    )
    used = found.x[: cost.size].reshape(cost.shape)
    return (used * day.work.work_w).sum(axis=(2, 3))


def solved(cost: np.ndarray, **constraints: Any) -> OptimizeResult:
    """The solution of a linear program: by simplex, where that gives up by interior points."""
    for method in ("highs-ds", "highs-ipm"):
        found = linprog(cost, method=method, **constraints)
        if found.success:
            return found
        if found.status == INFEASIBLE:
            raise UserError(
                "bounds: the fleet cannot serve all of the day's demand, so there is no least "
                "energy without drops: lower workload.peak_utilisation, or let a share be unserved"
            )
    raise RuntimeError(f"the program of a bound was not solved: {found.message}")


def lowered(value: float) -> float:
    """A bound less the tolerance of the solver."""
    return value - TOLERANCE * abs(value)
