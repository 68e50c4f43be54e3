"""What the policy sees: a token for every pool, and one for each of the four agents.

Every number is relative to the fleet's mean or share, so that a policy trained on some fleets reads
any other. Axes: B worlds, P pools, J = 4 agents in the order of `OBJECTIVES`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marlin.fleet.contract import OBJECTIVES, Inputs, State
from marlin.fleet.terms import TINY
from marlin.schedulers.marlin_nash.pools import Pools, by_site

POOL_FEATURES = 22
AGENT_FEATURES = len(OBJECTIVES) + 4
FACTOR_REACH = 6.0  # a factor counts up to so many times the fleet's mean
USUAL_NEAR = 0.25  # of a site's share, for centring


@dataclass(frozen=True)
class Tokens:
    """What is known before an epoch: of the coming one and of the one after it."""

    pools: Tensor  # [B, P, F]
    agents: Tensor  # [B, J, F]
    weights: Tensor  # [B, J] what the objectives weigh, sums to one
    factors: Tensor  # [B, P, 3] carbon, water and price of work over the fleet's mean, less one
    later_factors: Tensor  # [B, P, 3] the same of the epoch after
    work: Tensor  # [B, O, M, P] use of a pool if it took all of an origin's requests for a model
    later_work: Tensor  # [B, O, M, P]
    available: Tensor  # [B, P] share of nodes that can run
    on: Tensor  # [B, P] share of nodes that are on and can run
    waiting: Tensor  # [B, P] use of a pool by requests that wait at its site


def make_tokens(
    pools: Pools, state: State, forecast: Inputs, later: Inputs, weights: Tensor
) -> Tokens:
    """Tokens of states and of forecasts of the coming epoch and of the one after it."""
    worlds, count = len(weights), len(pools.nodes)
    factors, later_factors = relative_factors(pools, forecast), relative_factors(pools, later)
    demand = forecast.arrival_rate_per_s.sum((2, 3))  # [B, O]
    total = demand.sum(1, keepdim=True).clamp_min(TINY)
    work, later_work = _work(pools, forecast), _work(pools, later)
    room = torch.where(pools.has_nodes > 0.0, 1.0 / work.sum((1, 2)).clamp_min(TINY), 0.0)
    busy = 1.0 / room.sum(1, keepdim=True).clamp_min(TINY)  # [B, 1] if all were on
    growth = later.arrival_rate_per_s.sum((1, 2, 3))[:, None] / total - 1.0
    available = forecast.available.flatten(1) * pools.has_nodes
    on = state.nodes_on.flatten(1) / pools.nodes.clamp_min(TINY)
    can_serve = on.clamp(max=1.0) * available
    size = pools.site_size.clamp_min(1e-6)
    near = (demand @ pools.closeness / total / size).clamp(max=12.0)[:, pools.site]
    backlog = state.backlog.sum((2, 3)) / pools.world.epoch_s / total / size
    priced = weights[:, 1:] / weights[:, 1:].norm(dim=1, keepdim=True).clamp_min(TINY)
    slow = pools.latency_s / (pools.latency_s * pools.size).sum() - 1.0
    relative_size = (pools.size * pools.has_nodes.sum()).clamp_min(1e-4).log()
    fleet = torch.cat([2.0 * busy - 1.0, 5.0 * growth.clamp(-1.0, 1.0)], dim=1)  # [B, 2]
    columns = [
        *factors.unbind(-1),
        *(later_factors - factors).unbind(-1),
        (factors * priced[:, None]).sum(-1),
        USUAL_NEAR * (near - 1.0),
        10.0 * (demand @ pools.rtt_s) / total - 1.0,
        backlog.clamp(0.0, 2.0)[:, pools.site],
        on - 0.5,
        available - 1.0,
        relative_size,
        slow,
        pools.energy - 1.0,
        weights[:, :1] * slow,
        *fleet.split(1, dim=1),
        *weights.split(1, dim=1),
    ]
    identity = torch.eye(len(OBJECTIVES)).expand(worlds, -1, -1)
    return Tokens(
        pools=torch.stack([column.expand(worlds, count) for column in columns], dim=-1),
        agents=torch.cat(
            [
                identity,
                weights[..., None],
                weights.amax(1, keepdim=True)[..., None].expand(-1, len(OBJECTIVES), -1),
                fleet[:, None].expand(-1, len(OBJECTIVES), -1),
            ],
            dim=-1,
        ),
        weights=weights,
        factors=factors,
        later_factors=later_factors,
        work=work,
        later_work=later_work,
        available=available,
        on=can_serve,
        waiting=_waiting(pools, state, can_serve, available),
    )


def relative_factors(pools: Pools, inputs: Inputs) -> Tensor:
    """Carbon, water and price of a unit of work at each pool over the fleet's mean, less one.

    The mean of magnitudes, since prices may be negative. Shape [B, P, 3].
    """
    each = (
        torch.stack(
            [
                inputs.pue * inputs.carbon_g_per_kwh,
                inputs.wue_l_per_kwh + inputs.pue * inputs.ewif_l_per_kwh,
                inputs.pue * inputs.price_usd_per_mwh,
            ],
            dim=-1,
        )[:, pools.site]
        * pools.energy[:, None]
    )
    mean = (each.abs() * pools.size[:, None]).sum(1, keepdim=True).clamp_min(1e-6)
    return (each / mean).clamp(-FACTOR_REACH, FACTOR_REACH) - 1.0


def _waiting(pools: Pools, state: State, on: Tensor, available: Tensor) -> Tensor:
    """Use [B, P] of pools by what waits: of nodes that are on, then of the others of its site."""
    work = torch.einsum("bdms,dms->bd", state.backlog, pools.site_load) / pools.world.epoch_s
    work = work * pools.site_size
    warm, rest = by_site(pools, on * pools.size), by_site(pools, (available - on) * pools.size)
    of_warm = (work / warm.clamp_min(TINY)).clamp(max=1.0)
    of_rest = ((work - warm).clamp_min(0.0) / rest.clamp_min(TINY)).clamp(max=1.0)
    return of_warm[:, pools.site] * on + of_rest[:, pools.site] * (available - on)


def _work(pools: Pools, inputs: Inputs) -> Tensor:
    return torch.einsum("boms,pms->bomp", inputs.arrival_rate_per_s, pools.load)
