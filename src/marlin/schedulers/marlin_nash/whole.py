"""Servers are whole: which sites are worth running, and how many nodes run.

Prices leave a little work at every pool. A site with a node or two queues more than its utilisation
tells, as its few replicas are split between models, and it boots for little. So small sites leave
the market before it clears again, and what is left of pools is rounded to whole nodes. What is on
is kept longer than what is off is started. Axes: B worlds, O origins, M models, P pools.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marlin.schedulers.marlin_nash.pools import Pools
from marlin.schedulers.marlin_nash.tokens import Tokens

KEPT_SITE, STARTED_SITE = 1 / 3, 2 / 3  # of the least nodes of a site
KEPT_POOL, STARTED_POOL = 0.25, 0.75  # of a node
SPARE = 1.05  # room that sites which stay have at least, over the demand
MOST_LEFT_OUT = 0.1  # of the nodes asked for
ROUNDING = 1e-3  # of a node, by single precision
FALLBACK = 1e-9  # share of an open site, so that a class whose sites are all closed goes somewhere


def running(pools: Pools, tokens: Tokens, wanted: Tensor, room: Tensor, least: float) -> Tensor:
    """Pools [B, P] of sites that are worth running, one or zero; all if these have no room.

    `wanted` are shares of nodes [B, P], `room` [B, P] the use up to which a pool is filled.
    """
    runs = _worth_running(pools, tokens, wanted * pools.nodes, least).float()[:, pools.site]
    demand = (tokens.later_work * pools.size).sum((1, 2, 3)) / pools.has_nodes.sum()
    enough = (room * runs * pools.size).sum(1) > SPARE * demand
    return torch.where(enough[:, None], runs, 1.0)


def whole_nodes(
    pools: Pools, tokens: Tokens, on: Tensor, shares: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """Shares of nodes [B, P] that are whole nodes, and of requests [B, O, M, P] to sites with any.

    `on` [B, P] and `shares` [B, O, M, P] are those asked for.
    """
    can_run = tokens.available * pools.nodes
    count = on * pools.nodes
    count = torch.where(count >= torch.where(tokens.on > 0.0, KEPT_POOL, STARTED_POOL), count, 0.0)
    here = by_site(pools, count)
    runs = _worth_running(pools, tokens, count, least) | (here == here.amax(1, keepdim=True))
    left_out = (here * ~runs).sum(1) > MOST_LEFT_OUT * here.sum(1)
    runs = runs | left_out[:, None]
    raised = torch.where(runs & (here > 0.0), (_least(pools, tokens, least) / here).clamp_min(1), 0)
    count = torch.minimum((count * raised[:, pools.site] - ROUNDING).ceil(), can_run)
    idle = count.sum(1, keepdim=True) == 0.0
    largest = torch.nn.functional.one_hot(can_run.argmax(1), count.shape[1])
    count = torch.where(idle, torch.minimum(largest.float(), can_run), count)
    size = by_site(pools, count)[:, pools.site] * pools.size
    shares = torch.where(size[:, None, None] > 0.0, shares + FALLBACK * size[:, None, None], 0.0)
    return count / pools.nodes.clamp_min(1.0), shares / shares.sum(-1, keepdim=True)


def by_site(pools: Pools, values: Tensor) -> Tensor:
    """Sums [B, D] of values [B, P] over the pools of each site."""
    return values.new_zeros(len(values), len(pools.site_size)).index_add(1, pools.site, values)


def _worth_running(pools: Pools, tokens: Tokens, count: Tensor, least: float) -> Tensor:
    """Whether sites [B, D] are asked for enough nodes [B, P] to be kept, or to be started."""
    was_on = by_site(pools, tokens.on * pools.nodes) > 0.0
    enough = torch.where(was_on, KEPT_SITE, STARTED_SITE) * _least(pools, tokens, least)
    return by_site(pools, count) >= enough


def _least(pools: Pools, tokens: Tokens, least: float) -> Tensor:
    """Nodes [B, D] that a site runs at least if it runs: all that can, where they are fewer."""
    return by_site(pools, tokens.available * pools.nodes).clamp(max=least)
