"""Transport problems: classes of requests to sites at least cost, by linear programming."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array, hstack, vstack

SLACK_COST = 1e3  # of a site's whole capacity beyond the ceiling, in units of the cost's size


def transport(
    cost: np.ndarray, load: np.ndarray, room: np.ndarray, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Shares [K, D] of each class that minimise total cost while no site passes its room.

    `cost` [K, D] is what the whole of a class costs at a site, `load` [K, D] the utilisation that
    it puts there, `room` [D] the utilisation that a site can take, `allowed` [K, D] which pairs
    may be used (a class without any may use all). Where demand does not fit, sites are overfilled
    at a price, so that a solution always exists.
    Source: HiGHS through scipy; the relaxation of assignment problems in geo-load-balancing.
    """
    classes, sites = cost.shape
    size = np.abs(cost).mean() or 1.0
    whole, filled = share_rows(load)
    over = coo_array((-np.ones(sites), (np.arange(sites), np.arange(sites))))
    none = coo_array((classes, sites))
    usable = np.ones((classes, sites), bool) if allowed is None else allowed.copy()
    usable[~usable.any(axis=1)] = True
    upper = np.concatenate([usable.ravel().astype(float), np.full(sites, np.inf)])
    result = linprog(
        np.concatenate([cost.ravel() / size, np.full(sites, SLACK_COST * classes)]),
        A_ub=hstack([filled, over]),
        b_ub=room,
        A_eq=vstack([hstack([whole, none])]),
        b_eq=np.ones(classes),
        bounds=np.stack([np.zeros_like(upper), upper], axis=1),
        method="highs",
    )
    if not result.success:
        raise RuntimeError(f"transport problem was not solved: {result.message}")
    shares = np.clip(result.x[: classes * sites].reshape(classes, sites), 0.0, None)
    return shares / shares.sum(axis=1, keepdims=True)


def share_rows(load: np.ndarray) -> tuple[coo_array, coo_array]:
    """Constraint rows over shares [K x D]: their sum for each class, the load of each site.

    `load` [K, D] is the utilisation that the whole of a class puts on a site.
    """
    classes, sites = load.shape
    pairs = np.arange(classes * sites)
    whole = coo_array((np.ones(classes * sites), (pairs // sites, pairs)))
    filled = coo_array((load.ravel(), (pairs % sites, pairs)), shape=(sites, classes * sites))
    return whole, filled
