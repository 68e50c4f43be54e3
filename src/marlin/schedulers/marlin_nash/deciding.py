"""From the network's answer to a plan: agents bid, pools fill by price, nodes follow.

A unit of work has a price at every pool: what each agent bids for its objective, times what the
objective costs there. Work goes to cheap pools until they are full. That is a transport problem
with entropy, solved by a fixed number of price updates, so that slopes pass through: a pool that is
asked for more than it has room for becomes dearer (over-relaxed Sinkhorn scaling; room that is left
over counts as one more customer). Source: Cuturi (2013), Sinkhorn Distances; Thibault et al.
(2021), Overrelaxed Sinkhorn-Knopp Algorithm for Regularized Optimal Transport.

It is done for the epoch after the coming one, which says what should be booted now, once more
without the sites that are too small to run (`whole`), and for the coming epoch, in which requests
go to nodes that are warm. Axes: B worlds, O origins, M models, P pools.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marlin.fleet.contract import Plan
from marlin.fleet.terms import TINY
from marlin.schedulers.marlin_nash.network import Answer
from marlin.schedulers.marlin_nash.pools import Pools
from marlin.schedulers.marlin_nash.tokens import Tokens
from marlin.schedulers.marlin_nash.whole import running, whole_nodes

REACH = 4.0  # of the network's answers within the functions that bound a decision
ROOM_START, BUSY_START, WARM_START = 1.9, 2.0, 1.73  # logits: 0.87, 0.89 and 0.85
KEEP_START, RUSH_START = -2.0, -2.0  # logits: an eighth
FAST_IS_IDLE = 3.0  # how much less busy nodes are to be where all weight is on TTFT
LEAST_BUSY = 0.1
FULL_ENOUGH = 0.8  # utilisation that nodes are given at least when work comes beyond the plan
TTFT_SCALE_S = 0.23  # what TTFT is priced by, as prices of energy are by their mean
NO_NODES = 1e-30


@dataclass(frozen=True)
class Market:
    """How prices are found."""

    sharpness: float  # of choices: a price difference of 1 / sharpness is e-fold
    later_rounds: int  # price updates for the epoch after
    rounds: int  # price updates for the coming epoch, from those prices
    relaxation: float
    least_nodes: float  # of a site that runs; 0: sites and nodes come in part
    rescue: bool  # whether what waits takes room, and nodes that are off count if too few are on


@dataclass(frozen=True)
class Decision:
    """A plan, and how it came about."""

    plan: Plan
    bids: Tensor  # [B, J] what an agent bids for a unit of its objective
    shares: Tensor  # [B, O, M, P] of requests
    wanted: Tensor  # [B, P] share of nodes that should run in the epoch after


def decide(pools: Pools, tokens: Tokens, answer: Answer, market: Market) -> Decision:
    """The plan for the coming epoch."""
    weights = tokens.weights
    bids = weights / weights.norm(dim=1, keepdim=True) * torch.exp(2.0 * answer.bid)
    bids = market.sharpness * bids
    room = torch.sigmoid(REACH * answer.room + ROOM_START) * tokens.available
    waiting = tokens.waiting if market.rescue else torch.zeros_like(tokens.waiting)
    room = (room - waiting).clamp_min(0.0)
    fast = FAST_IS_IDLE * weights[:, :1]
    busy = torch.sigmoid(REACH * answer.busy + BUSY_START - fast)
    busy = LEAST_BUSY + (1.0 - LEAST_BUSY) * busy

    worth = _worth(pools, answer, bids, tokens.later_factors)
    start = torch.zeros_like(room)
    prices = clear(
        worth, tokens.later_work, room, pools, start, market.later_rounds, market.relaxation
    )
    use = (chosen(worth, prices) * tokens.later_work).sum((1, 2))
    if market.least_nodes:
        runs = running(pools, tokens, (use + waiting) / busy, room, market.least_nodes)
        room = room * runs[:, pools.site]
        prices = clear(
            worth, tokens.later_work, room, pools, prices, market.rounds, market.relaxation
        )
        use = (chosen(worth, prices) * tokens.later_work).sum((1, 2))
    wanted = ((use + waiting) / busy).clamp(max=1.0)

    rush = torch.sigmoid(REACH * answer.rush + RUSH_START)[:, None]
    booting = rush * (wanted - tokens.on).clamp_min(0.0) * (1.0 - pools.late) * busy
    if market.rescue:
        booting = torch.maximum(booting, _needed(pools, tokens, busy))
    warm = tokens.on * torch.sigmoid(REACH * answer.warm + WARM_START) + booting
    warm = (warm - waiting).clamp_min(0.0)
    worth = _worth(pools, answer, bids, tokens.factors)
    prices = clear(worth, tokens.work, warm, pools, prices, market.rounds, market.relaxation)
    shares = chosen(worth, prices)
    use = (shares * tokens.work).sum((1, 2)) + waiting
    beyond = (use / busy.clamp_min(FULL_ENOUGH) - tokens.on).clamp_min(0.0)
    serving = torch.minimum(tokens.on, use / busy) + beyond / (1.0 - pools.late)
    kept = torch.sigmoid(REACH * answer.keep + KEEP_START) * tokens.on
    on = torch.maximum(torch.maximum(wanted, serving), kept)
    if market.least_nodes:
        on, shares = whole_nodes(pools, tokens, on, shares, runs, market.least_nodes)
    power = (on / tokens.available.clamp_min(TINY)).clamp(max=1.0) * pools.has_nodes
    return Decision(_plan(pools, shares, power), bids, shares, wanted)


def clear(
    worth: Tensor, work: Tensor, room: Tensor, pools: Pools, prices: Tensor, rounds: int,
    relaxation: float,
) -> Tensor:  # fmt: skip
    """Prices [B, P] at which pools are asked for what they have room for, nearly.

    Args:
        worth: [B, O, M, P] of each pool to each class of requests, without prices.
        work: [B, O, M, P] use of a pool if it took all of a class.
        room: [B, P] use up to which a pool is filled.
        pools: of the fleet.
        prices: [B, P] to start from.
        rounds: price updates.
        relaxation: from 1 to below 2, how far each goes.
    """
    size, heard = pools.size, pools.has_nodes.clamp_min(NO_NODES).log()
    places = room * size
    demand = (work * size).sum(-1) / pools.has_nodes.sum()  # [B, O, M] in shares of the fleet
    spare = (places.sum(1) - demand.sum((1, 2))).clamp_min(1e-3)
    for _ in range(rounds):
        asked = (chosen(worth, prices) * demand[..., None]).sum((1, 2))
        asked = asked + torch.softmax(heard - prices, dim=-1) * spare[:, None]
        dearer = (asked.clamp_min(TINY) / places.clamp_min(1e-9)).log()
        prices = prices + relaxation * dearer * pools.has_nodes
    return prices


def _needed(pools: Pools, tokens: Tokens, busy: Tensor) -> Tensor:
    """Room [B, P] on nodes that are off, as far as those that are on are too few."""
    off = (tokens.available - tokens.on) * (1.0 - pools.late) * busy
    demand = (tokens.work * pools.size).sum((1, 2, 3)) / pools.has_nodes.sum()
    short = demand + ((tokens.waiting - tokens.on) * pools.size).sum(1)
    part = (short / (off * pools.size).sum(1).clamp_min(TINY)).clamp(0.0, 1.0)
    return part[:, None] * off


def chosen(worth: Tensor, prices: Tensor) -> Tensor:
    """Shares [B, O, M, P] of pools that are chosen by worth less price."""
    return torch.softmax(worth - prices[:, None, None], dim=-1)


def _worth(pools: Pools, answer: Answer, bids: Tensor, factors: Tensor) -> Tensor:
    """What each pool is worth to each class, [B, O, M, P]: less for what agents bid against."""
    wait = bids[:, :1] / TTFT_SCALE_S
    own = REACH * answer.taste - (bids[:, None, 1:] * factors).sum(-1) - wait * pools.latency_s
    own = own + pools.has_nodes.clamp_min(NO_NODES).log()
    heavy = 2.0 * answer.taste_for_heavy[:, None] * pools.heavier[None, :, None]
    by_model = own[:, None] + heavy  # [B, M, P]
    return by_model[:, None] - (wait[..., None] * pools.rtt_s)[:, :, None]


def _plan(pools: Pools, shares: Tensor, power: Tensor) -> Plan:
    sites, types = pools.shape
    worlds, origins, models, _ = shares.shape
    services = pools.load.shape[2]
    by_site = shares.reshape(worlds, origins, models, sites, types).sum(-1)
    routing = by_site[:, :, :, None].expand(-1, -1, -1, services, -1)
    return Plan(routing, power.reshape(worlds, sites, types))
