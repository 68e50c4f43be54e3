"""What the agents agree on: the Nash bargaining solution over the network's own front.

An agent's utility is what its resource yields: one over its cost, beside that of the even split.
The network is played on past days under many weights; each gives an outcome. Where agents do not
agree something else happens: nothing is served, or the even split is carried out, or a lot draws
who decides alone for the day. The bargaining solution has the largest product of gains over that
(Nash 1950). Where nothing is served without agreement, it is the outcome with the least geometric
mean of costs, which is what balanced scores are.

Weights are those of the logarithms of costs, which is how the network learned them. The solution
over mixtures of outcomes comes first, and the weights that support it are known from it. As the
network's front is not quite convex, what it does under them differs from the mixture, so some steps
towards weights that support themselves follow; of all that was played, the outcome with the largest
product of gains is agreed on. No plans are mixed.

Where something is carried out without agreement, the weights that support the solution depend on
what is gained: then the agents keep accounts while days go by, and the weights follow: gradient
scheduling with the slope of the product at the mean gain converges to the bargaining solution of
long-run gains where the front is convex (Stolyar 2005, On the asymptotic optimality of the gradient
scheduling algorithm). Axes: K candidates, J agents, B worlds, N days.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import OBJECTIVES, row
from marlin.fleet.simulator import step
from marlin.games.bargaining import nash
from marlin.games.equilibrium import best_response_gain
from marlin.schedulers.marlin_nash.deciding import Market, decide
from marlin.schedulers.marlin_nash.fleets import Fleet, Record
from marlin.schedulers.marlin_nash.network import Policy
from marlin.schedulers.marlin_nash.practice import LEAST_DAY, even_split, heard_weights, totals
from marlin.schedulers.marlin_nash.tokens import make_tokens

DIVISIONS = 4  # of each weight in the candidates: 35 of them
STEPS = 4  # towards weights that support themselves
PLAYS = 36 + STEPS  # of a day to bargain about it: every candidate, the even split, the steps
LEAST_COST = 0.02  # of the even split's: prices may be negative
CLAIMS = (0.25, 0.5, 2.0, 4.0)  # of an agent's weight, that it may claim instead
LEAST_GAIN = 0.02  # of a cost: keeps weights defined where an agent gains nothing


@dataclass(frozen=True)
class Terms:
    """Under which the agents bargain."""

    powers: np.ndarray  # [J] of the agents, they sum to one
    otherwise: Literal["nothing", "even_split", "lottery"]  # without agreement
    least_weight: float  # of every objective


@dataclass(frozen=True)
class Agreement:
    """What was agreed on past days."""

    weights: np.ndarray  # [J] under which the network is run
    costs: np.ndarray  # [J] of each agent, over those of the even split
    otherwise: np.ndarray  # [J] the same where they do not agree, infinite if nothing is served


def candidates() -> np.ndarray:
    """Weights [K, J] that span the front: all multiples of 1 / `DIVISIONS` that sum to one."""
    counts = itertools.product(range(DIVISIONS + 1), repeat=len(OBJECTIVES))
    return np.array([c for c in counts if sum(c) == DIVISIONS]) / DIVISIONS


def play(
    policy: Policy, market: Market, fleet: Fleet, record: Record, first: Tensor, weights: Tensor,
    epochs: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Objectives [B, J] and the share of requests dropped [B] of whole days from `first` [B] on.

    TTFT is the mean over requests, the others are sums. `first` are rows of the record; `weights`
    are [B, J], or [T, B, J] if they change from epoch to epoch.
    """
    pools, state = fleet.pools, fleet.pools.world.idle_state(len(first))
    weights = weights.expand(epochs, -1, -1)
    costs = torch.zeros_like(weights[0])
    arrived = dropped = torch.zeros(len(first))
    with torch.no_grad():
        for offset in range(epochs):
            forecast, later = (row(i, first + offset) for i in (record.forecast, record.later))
            tokens = make_tokens(pools, state, forecast, later, weights[offset])
            plan = decide(pools, tokens, policy(tokens, pools.has_nodes), market).plan
            state, outcome = step(pools.world, state, plan, row(record.truth, first + offset))
            costs = costs + totals(outcome)
            arrived, dropped = arrived + outcome.arrived, dropped + outcome.dropped
    return _means(costs, arrived), dropped / arrived


def play_even(fleet: Fleet, record: Record, first: Tensor, epochs: int) -> Tensor:
    """Objectives [B, J] of the even split on the same days."""
    world = fleet.pools.world
    state = world.idle_state(len(first))
    costs, arrived = torch.zeros(len(first), len(OBJECTIVES)), torch.zeros(len(first))
    for offset in range(epochs):
        plan = even_split(fleet, row(record.forecast, first + offset))
        state, outcome = step(world, state, plan, row(record.truth, first + offset))
        costs, arrived = costs + totals(outcome), arrived + outcome.arrived
    return _means(costs, arrived)


def agree(
    policy: Policy, market: Market, fleet: Fleet, record: Record, first: Tensor, epochs: int,
    terms: Terms,
) -> Agreement:  # fmt: skip
    """The bargaining solution on days from `first` [N] on.

    If no weights that were played are a gain for every agent, those with the largest least gain.
    """
    even = play_even(fleet, record, first, epochs)
    even = even.maximum(LEAST_DAY * even.abs().mean(dim=0))

    def ratios(weights: np.ndarray) -> np.ndarray:
        """Costs [K, J] under weights [K, J], over those of the even split on the same day."""
        heard = heard_weights(torch.as_tensor(weights, dtype=torch.float32), terms.least_weight)
        every = heard.repeat_interleave(len(first), 0)
        costs, _ = play(policy, market, fleet, record, first.repeat(len(heard)), every, epochs)
        return (costs.reshape(len(heard), *even.shape) / even).mean(dim=1).double().numpy()

    weights = candidates()
    costs = ratios(weights)
    otherwise = np.full(len(OBJECTIVES), {"nothing": np.inf}.get(terms.otherwise, 1.0))
    if terms.otherwise == "lottery":
        otherwise = costs[weights.argmax(axis=0)].mean(axis=0)  # each agent by itself, in turn
    mixed = nash(gains(costs, otherwise), terms.powers).gains
    trial = supporting_weights(1.0 / (mixed + 1.0 / otherwise), otherwise, terms.powers)
    for _ in range(STEPS):
        paid = ratios(trial[None])
        weights, costs = np.concatenate([weights, trial[None]]), np.concatenate([costs, paid])
        trial = np.sqrt(trial * supporting_weights(paid[0], otherwise, terms.powers))
        trial /= trial.sum()
    gained = gains(costs, otherwise)
    product = (gained.clip(0.0) ** terms.powers).prod(axis=1)
    best = int((product if product.any() else gained.min(axis=1)).argmax())
    return Agreement(weights[best], costs[best], otherwise)


def claim_gains(
    policy: Policy, market: Market, fleet: Fleet, record: Record, first: Tensor, epochs: int,
    weights: np.ndarray, least_weight: float,
) -> np.ndarray:  # fmt: skip
    """Share of its cost [J] that each agent could save if it alone claimed another weight.

    The best of `CLAIMS`, on days from `first` [N] on; the others keep to `weights` [J].
    """
    claims = np.array(CLAIMS)
    tried = np.tile(weights, (len(weights), len(claims), 1))
    for agent in range(len(weights)):
        tried[agent, :, agent] *= claims
    every = np.concatenate([weights[None], tried.reshape(-1, len(weights))])
    every = torch.as_tensor(every / every.sum(axis=1, keepdims=True), dtype=torch.float32)
    heard = heard_weights(every, least_weight).repeat_interleave(len(first), 0)
    costs, _ = play(policy, market, fleet, record, first.repeat(len(every)), heard, epochs)
    means = costs.reshape(len(every), len(first), -1).mean(dim=1).double().numpy()
    return best_response_gain(means[0], means[1:].reshape(*tried.shape))


def untried(terms: Terms) -> Agreement:
    """Weights by power, for want of outcomes to bargain about."""
    even = np.ones(len(OBJECTIVES))
    return Agreement(terms.powers, even, np.inf * even)


def gains(costs: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """What each agent's resource yields beyond what it yields without agreement, [..., J]."""
    return 1.0 / np.clip(costs, LEAST_COST, None) - 1.0 / otherwise


def supporting_weights(costs: np.ndarray, otherwise: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Weights [J] whose best outcome is the bargaining solution if it costs these `costs` [J].

    Minus the slope of sum_j powers_j log gains_j by the logarithms of the costs: an agent that
    gains little over what happens otherwise counts for more. Where nothing is served otherwise,
    weights are the powers.
    """
    slope = powers / np.clip(1.0 - costs / otherwise, LEAST_GAIN, None)
    return slope / slope.sum()


def _means(costs: Tensor, arrived: Tensor) -> Tensor:
    return torch.cat([costs[:, :1] / arrived[:, None], costs[:, 1:]], dim=1)
