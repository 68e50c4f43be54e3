"""What learners are paid: each objective beside what the even split would have cost."""

from __future__ import annotations

import numpy as np

from marlin.fleet.contract import Inputs, Outcome
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.fleet.world import World

REFERENCE_TARGET = 0.75
SHIFT_USD = 0.005  # per kWh: keeps the logarithm defined when energy prices are negative
RATIO_REACH = 10.0  # beyond it a metric is as good or bad as at it
METRIC_SCALE = np.array([1.5, 1.0, 1.0, 1.0])  # as MARLIN weighs its metric terms: 12 to 8


def even_split(world: World, forecast: Inputs, inputs: Inputs) -> Outcome:
    """What the even split, planned on `forecast`, costs a warm fleet when `inputs` come true.

    Rewards are measured against it. It starts from everything on and no backlog, whatever state
    the world is in: a reference that suffered from the state would reward staying in bad ones.
    """
    demand = forecast.arrival_rate_per_s
    routing = np.full((*demand.shape, len(world.sites)), 1.0 / len(world.sites))
    plan = sized_plan(world, routing, demand, REFERENCE_TARGET)
    return step(world, world.idle_state(len(demand)), plan, inputs)[1]


def metric_table(outcome: Outcome) -> np.ndarray:
    """Objectives as [B, N]."""
    return np.stack(outcome.objectives(), axis=-1)


def metrics_per_served(outcome: Outcome) -> np.ndarray:
    """Positive metrics [B, N]: per request served, so that turning requests away earns nothing.

    Prices may be negative: energy costs are shifted by `SHIFT_USD` a kWh.
    """
    served = np.clip(1.0 - dropped_share(outcome), 0.01, 1.0)
    table = metric_table(outcome)
    table[:, 3] += SHIFT_USD * outcome.energy_kwh
    table[:, 1:] /= served[:, None]
    return np.clip(table, 1e-3, None)


def dropped_share(outcome: Outcome) -> np.ndarray:
    """Share of the arrivals that were turned away, [B]."""
    return outcome.dropped / np.clip(outcome.arrived, 1e-9, None)


def log_ratio_rewards(outcome: Outcome, reference: np.ndarray, drop_penalty: float) -> np.ndarray:
    """Rewards [B, N]: minus the scaled logarithm of each metric over the reference's [B, N].

    `reference` is `metrics_per_served` of the even split. Ratios are cut at `RATIO_REACH` and its
    inverse: one cold start must not drown the rest. Every objective pays `drop_penalty` times the
    share of requests dropped.
    """
    ratio = metrics_per_served(outcome) / reference
    ratio = np.clip(ratio, 1.0 / RATIO_REACH, RATIO_REACH)
    return -METRIC_SCALE * np.log(ratio) - drop_penalty * dropped_share(outcome)[:, None]
