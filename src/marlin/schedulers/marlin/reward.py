"""What MARLIN's agents are paid: equation 7 of the paper, as public descriptions have it.

``r = bonus - metric term + eco bonus - SLA penalty`` for each agent, where every metric stands over
its own running mean. Axes: R outcomes, N agents and objectives, D sites, G node types.
Source: MARLIN (2026), equation 7; the numbers as given in docs/schedulers/marlin.md.
"""

from __future__ import annotations

import numpy as np

from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.world import World
from marlin.schedulers.loads import site_capacity_per_s

FLOOR = np.array([0.1, 5.0, 5.0, 0.5])  # s, kg, L, USD: of the running means
MEAN_STEP = 0.05
BONUS = np.array([4.5, 3.0, 3.0, 3.0])
METRIC = np.array([12.0, 8.0, 8.0, 8.0])
ECO, ECO_TYPES = 0.05, 0.75
ECO_SHARE = np.array([0.0, 1.0, 1.0, 1.0])  # one less the weight of TTFT
SLA = 1.5
ON = 1e-9  # a power level above it counts as on


def metrics(world: World, outcome: Outcome, per_request: bool) -> np.ndarray:
    """Objectives [R, N]; if `per_request`, totals are those of an epoch of as many requests as the
    fleet could serve of its mean class.

    Demand moves all totals, and the published state does not show it.
    """
    table = np.stack(outcome.objectives(), axis=-1)
    if per_request:
        full = site_capacity_per_s(world).sum(axis=0).mean() * world.epoch_s
        table[:, 1:] *= full / np.clip(outcome.served, 1.0, None)[:, None]
    return table


def floored(mean: np.ndarray) -> np.ndarray:
    """Running means [N] that a metric may stand over."""
    return np.maximum(mean, FLOOR)


def next_mean(mean: np.ndarray | None, seen: np.ndarray) -> np.ndarray:
    """Running mean [N] after the metrics `seen` [R, N] of one epoch; the first epoch starts it.

    Of many worlds the median counts: a few that start cold would lift the mean until nothing else
    told good from bad.
    """
    now = np.median(seen, axis=0)
    return now if mean is None else mean + MEAN_STEP * (now - mean)


def switched_off(world: World, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Share of the fleet's pools that are off, and of its sites, [R] each."""
    there = world.constants.nodes > 0
    pools = ((1.0 - plan.power) * there).sum(axis=(1, 2)) / there.sum()
    sites = (plan.power * there <= ON).all(axis=2).mean(axis=1)
    return pools, sites


def rewards(
    table: np.ndarray, mean: np.ndarray, served: np.ndarray, pools_off: np.ndarray,
    sites_off: np.ndarray, damped: bool = False,
) -> np.ndarray:  # fmt: skip
    """Reward [R, N] of every agent for every outcome, whoever proposed it.

    `table` [R, N] metrics, `mean` [N] their running means, `served` [R] the share of requests that
    was served, `pools_off` and `sites_off` [R] shares. If `damped`, a ratio above one grows with
    its logarithm from there on: a cold start makes TTFT a hundred times as long, and a critic that
    must tell ten from a hundred times does not tell 0.9 from 1.1.
    """
    ratio = table / floored(mean)
    if damped:
        ratio = np.minimum(ratio, 1.0 + np.log(np.clip(ratio, 1.0, None)))
    bonus = BONUS * np.clip(1.0 - ratio, 0.0, None) ** 2
    eco = ECO * served * (ECO_TYPES * np.sqrt(pools_off) + sites_off)
    penalty = SLA * (1.0 - served)
    return bonus - METRIC * ratio + ECO_SHARE * eco[:, None] - penalty[:, None]


def paid(
    world: World, plan: Plan, outcome: Outcome, mean: np.ndarray, per_request: bool, damped: bool
) -> np.ndarray:
    """Reward [R, N] of carrying plans out."""
    served = outcome.served / np.clip(outcome.arrived, 1e-9, None)
    table = metrics(world, outcome, per_request)
    return rewards(table, mean, np.minimum(served, 1.0), *switched_off(world, plan), damped)
