"""Servers are whole: which sites are worth running, and how many nodes run.

Prices leave a little work at every pool. A site with a node or two queues more than its utilisation
tells, as its few replicas are split between models, and it boots for little. So small sites leave
the market before it clears again, and what is left of pools is rounded to whole nodes. What is on
is kept longer than what is off is started. Axes: B worlds, O origins, M models, P pools, D sites,
G node types.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marlin.fleet.terms import TINY
from marlin.schedulers.marlin_nash.pools import Pools, by_site, split
from marlin.schedulers.marlin_nash.tokens import Tokens

KEPT_SITE, STARTED_SITE = 1 / 3, 2 / 3  # of the least nodes of a site
KEPT_POOL, STARTED_POOL = 0.25, 0.75  # of a node
SPARE = 1.02  # room that sites which run have at least, over the demand
ROUNDING = 1e-3  # of a node, by single precision
FALLBACK = 1e-9  # share of an open site, so that a class whose sites are all closed goes somewhere


def running(pools: Pools, tokens: Tokens, wanted: Tensor, room: Tensor, least: float) -> Tensor:
    """Sites [B, D] that are worth running: asked for enough nodes, or needed for their room.

    `wanted` are shares of nodes [B, P], `room` [B, P] the use up to which a pool is filled. Sites
    that are asked for most come first until they have room for the demand.
    """
    planned = by_site(pools, wanted * pools.nodes)
    demand = (tokens.later_work * pools.size).sum((1, 2, 3)) / pools.has_nodes.sum()
    size = by_site(pools, room * pools.size)
    order = planned.argsort(dim=1, descending=True)
    before = torch.gather(size, 1, order).cumsum(1) - torch.gather(size, 1, order)
    needed = torch.zeros_like(planned, dtype=torch.bool)
    needed.scatter_(1, order, before < SPARE * demand[:, None])
    needed &= size > 0.0
    was_on = by_site(pools, tokens.on * pools.nodes) > 0.0
    enough = torch.where(was_on, KEPT_SITE, STARTED_SITE) * _least(pools, tokens, least)
    return needed | (planned >= enough)


def whole_nodes(
    pools: Pools, tokens: Tokens, on: Tensor, shares: Tensor, runs: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """Shares of nodes [B, P] that are whole nodes, and of requests [B, O, M, P] to sites with any.

    `on` [B, P] and `shares` [B, O, M, P] are those asked for. A site runs if `runs` [B, D] says so,
    or on what is on of it as long as enough of that is asked for; then it runs `least` nodes.
    """
    can_run, count = tokens.available * pools.nodes, on * pools.nodes
    fewest = _least(pools, tokens, least)
    already = torch.minimum(count, tokens.on * pools.nodes)
    runs = runs | (by_site(pools, already) >= KEPT_SITE * fewest)
    largest = count == split(pools, count).amax(-1)[:, pools.site]
    enough = count >= torch.where(tokens.on > 0.0, KEPT_POOL, STARTED_POOL)
    count = torch.where((enough | largest) & runs[:, pools.site], count, 0.0)
    here = by_site(pools, count)
    raised = torch.where(here > 0.0, (fewest / here.clamp_min(TINY)).clamp_min(1.0), 0.0)
    count = torch.minimum((count * raised[:, pools.site] - ROUNDING).ceil(), can_run)
    one = torch.nn.functional.one_hot(can_run.argmax(1), count.shape[1])
    count = torch.where(count.sum(1, keepdim=True) > 0.0, count, torch.minimum(one, can_run))
    size = by_site(pools, count)[:, pools.site] * pools.size
    shares = torch.where(size[:, None, None] > 0.0, shares + FALLBACK * size[:, None, None], 0.0)
    return count / pools.nodes.clamp_min(1.0), shares / shares.sum(-1, keepdim=True)


def _least(pools: Pools, tokens: Tokens, least: float) -> Tensor:
    """Nodes [B, D] that a site runs at least if it runs: all that can, where they are fewer."""
    return by_site(pools, tokens.available * pools.nodes).clamp(max=least)
