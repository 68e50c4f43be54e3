"""Coefficients of the program of a horizon, from forecasts and from curves of nodes."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from marlin.fleet.contract import Inputs, State
from marlin.fleet.simulator import JOULES_PER_KWH, TINY
from marlin.fleet.world import World
from marlin.schedulers.curves import USE, Curves, at_use, mix_rate_per_s
from marlin.schedulers.factors import carbon_g_per_kwh, price_usd_per_mwh, water_l_per_kwh
from marlin.schedulers.loads import backlog_load, load_per_request_per_s
from marlin.schedulers.mpc.program import Program

FACTORS = (carbon_g_per_kwh, water_l_per_kwh, price_usd_per_mwh)
"""What a kWh of IT energy costs at a site by each objective after TTFT, in their order."""


def make_program(
    world: World,
    state: State,
    ahead: Inputs,
    curves: Curves,
    weights: np.ndarray,
    ceiling: float,
    demand_error: float,
) -> Program:
    """Least weighted sum of objectives, each relative to an even split, over `ahead` [H, ...].

    `weights` [4] in the order of `OBJECTIVES`; nodes that serve are filled to `ceiling` at most;
    `demand_error` is the relative standard deviation of a site's demand around its forecast.
    """
    constants = world.constants
    requests = ahead.arrival_rate_per_s.sum(axis=(2, 3))  # [H, O]
    rate, size = _rate_and_size(world, ahead)
    even = even_split(world, ahead, curves, ceiling)
    worth = weights / even
    factors = np.stack([factor(ahead) for factor in FACTORS], axis=-1)  # [H, D, 3]
    per_w = world.epoch_s / JOULES_PER_KWH * (factors @ worth[1:])[..., None]  # [H, D, 1]
    per_s = worth[0] / np.clip(requests.sum(axis=1, keepdims=True), TINY, None)  # [H, 1]
    full_w = at_use(curves.node_w, ceiling)
    slope_w = (full_w - at_use(curves.node_w, 0.5 * ceiling)) / (0.5 * ceiling)
    node_load = rate / size[:, None]
    slope_s, offset_s = delay_pieces(world.epoch_s, curves.latency_s, demand_error)
    return Program(
        load=_load(world, ahead),
        nodes=constants.nodes * ahead.available,
        nodes_on=state.nodes_on[0],
        node_load=node_load,
        ceiling=ceiling,
        warm_ceiling=1.0 / (1.0 + demand_error),
        spill_ceiling=world.utilisation_ceiling,
        late=np.clip(constants.cold_s / world.epoch_s, None, 1.0),
        backlog=backlog_load(world, state),
        share_cost=(per_s * requests)[..., None] * constants.rtt_s,
        work_cost=per_w * slope_w / node_load,
        ready_cost=per_w * (full_w - ceiling * slope_w),
        boot_cost=per_w * (constants.base_idle_w + constants.gpus * constants.gpu_context_w),
        off_cost=per_w * constants.off_w,
        delay_cost=per_s * size,
        delay_slope=slope_s,
        delay_offset=offset_s * node_load,
        cold_s=float(constants.cold_s.max() ** 2 / (2.0 * world.epoch_s)),
    )


def even_split(world: World, ahead: Inputs, curves: Curves, ceiling: float) -> np.ndarray:
    """What an even split by capacity would cost in a mean epoch of `ahead`, [4].

    TTFT in seconds, then IT energy in kWh times each of `FACTORS`; of prices, which may be
    negative, the magnitudes count.
    """
    nodes = world.constants.nodes
    rate, size = _rate_and_size(world, ahead)
    share = nodes @ rate / np.clip((nodes @ rate).sum(), TINY, None)
    inside_s = (at_use(curves.latency_s, ceiling) * nodes * rate).sum(axis=1) / size
    by_origin = ahead.arrival_rate_per_s.sum(axis=(0, 2, 3)) + TINY
    ttft_s = by_origin @ (world.constants.rtt_s + inside_s) @ share / by_origin.sum()
    full_kwh = world.epoch_s / JOULES_PER_KWH * (nodes * at_use(curves.node_w, ceiling)).sum(axis=1)
    kwh = _load(world, ahead).sum(axis=1) * share * full_kwh / ceiling  # [H, D]
    costs = [(kwh * np.abs(factor(ahead))).sum(axis=1).mean() for factor in FACTORS]
    return np.clip([ttft_s, *costs], TINY, None)


def mix_of(forecast: Inputs) -> np.ndarray:
    """Shares of requests by model and service, [M, S]; even ones without demand."""
    demand = forecast.arrival_rate_per_s.sum(axis=(0, 1)) + TINY
    return demand / demand.sum()


def delay_pieces(
    epoch_s: float, latency_s: np.ndarray, demand_error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Linear pieces of utilisation times delay, slopes and offsets [I, D, G].

    To the latency [D, G, U] comes the backlog that is to be expected when demand is normally
    distributed around its forecast: half of an epoch's wait for each of the two epochs it spans.
    """
    spread = demand_error * USE
    gap = (1.0 - USE) / spread
    density = np.exp(-0.5 * gap**2) / np.sqrt(2.0 * np.pi)
    backlog = spread * (density - gap * ndtr(-gap))
    total = np.zeros((*latency_s.shape[:-1], len(USE) + 1))
    total[..., 1:] = USE * (latency_s + epoch_s * backlog)
    use = np.concatenate([[0.0], USE])
    # Where the curve is not quite convex it is taken as a little higher.
    slope = np.maximum.accumulate(np.diff(total) / np.diff(use), axis=-1)
    offset = total[..., :-1] - slope * use[:-1]
    return np.moveaxis(slope, -1, 0), np.moveaxis(offset, -1, 0)


def _rate_and_size(world: World, ahead: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Requests per second that fill a node of each type, [G], and a site, [D]; one if it is empty.

    Of the mean mix of requests.
    """
    rate = mix_rate_per_s(world, mix_of(ahead))
    size = world.constants.nodes @ rate
    return rate, np.where(size > 0.0, size, 1.0)


def _load(world: World, ahead: Inputs) -> np.ndarray:
    """Load of all of an origin at a site, [H, O, D]; none at a site without nodes."""
    load = np.einsum("homs,dms->hod", ahead.arrival_rate_per_s, load_per_request_per_s(world))
    return np.where(world.constants.nodes.sum(axis=1) > 0.0, load, 0.0)
