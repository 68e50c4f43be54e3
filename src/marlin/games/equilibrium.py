"""What agents could gain by deviating alone: how far a point is from a Nash equilibrium.

A Nash *equilibrium* is a profile of strategies from which no agent gains by changing its own. A
Nash *bargaining* point (`marlin.games.bargaining`) is the outcome with the largest product of gains
and needs agents that keep to what was agreed. Neither implies the other: cooperation in a
prisoners' dilemma is bargained and not stable. All numbers here are costs, lower is better.
Axes: J agents, A_j actions of agent j, P alternative reports. NumPy or torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from marlin.errors import UserError

Array = Any


@dataclass(frozen=True)
class Exploitability:
    """What each agent saves by its best reply to the others, and the sum over agents.

    Zero for all is an equilibrium of the game that was tabulated, among its actions alone.
    """

    gain: Array  # [J] in the units of the costs, not negative
    nash_conv: float


def cost_table(
    outcome_of: Callable[[tuple[int, ...]], Sequence[float]], sizes: Sequence[int]
) -> np.ndarray:
    """Costs [A_1, ..., A_J, J] of every pure profile of a game with `sizes` actions.

    `outcome_of` gives the costs of all agents [J] for the action that each has taken.
    """
    profiles = itertools.product(*(range(size) for size in sizes))
    costs = np.array([outcome_of(profile) for profile in profiles], dtype=float)
    return costs.reshape(*sizes, len(sizes))


def exploitability(costs: Array, strategies: Sequence[Array]) -> Exploitability:
    """Gains of the best unilateral deviations from a profile of a finite game.

    Args:
        costs: [A_1, ..., A_J, J].
        strategies: of each agent the chance of each action, [A_j].

    NashConv is that of Lanctot et al. (2017). Raises UserError for shapes that do not fit.
    """
    sizes = [len(strategy) for strategy in strategies]
    if tuple(costs.shape) != (*sizes, len(sizes)):
        raise UserError(
            f"costs have shape {tuple(costs.shape)}, but strategies of {sizes} actions need "
            f"{(*sizes, len(sizes))}"
        )
    xp = array_namespace(costs)
    gains = []
    for agent, strategy in enumerate(strategies):
        replies = _reply_costs(costs, strategies, agent)
        # Never below zero but for rounding: the mean is not under the least.
        gains.append(xp.clip(strategy @ replies - xp.min(replies), min=0.0))
    gain = xp.stack(gains)
    return Exploitability(gain, float(xp.sum(gain)))


def pure_equilibria(costs: Array) -> Array:
    """Whether no agent gains by deviating alone, for every pure profile: [A_1, ..., A_J]."""
    xp = array_namespace(costs)
    stable = [
        costs[..., agent] <= xp.min(costs[..., agent], axis=agent, keepdims=True)
        for agent in range(costs.shape[-1])
    ]
    return xp.all(xp.stack(stable), axis=0)


def best_response_gain(agreed: Array, deviations: Array) -> Array:
    """What each agent could save by the best of P other reports to a rule, [..., J].

    Args:
        agreed: [..., J] costs under the reports as they are.
        deviations: [..., J, P, J] costs of all agents under the outcome that the rule would choose
            if agent j alone (the first J) made report p.

    Relative to the size of the agent's agreed cost: zero if no report is better, infinite where a
    cost of zero could go down. Zero for all says that the reports are an equilibrium among those
    tried, for this rule; it does not say that the outcome is good. Raises UserError for shapes
    that do not fit.
    """
    shape, agents = tuple(deviations.shape), agreed.shape[-1]
    if len(shape) < 3 or shape != (*agreed.shape, shape[-2], agents) or shape[-2] == 0:
        raise UserError(
            f"deviations have shape {shape}, but agreed costs of shape {tuple(agreed.shape)} need "
            "[..., J, P, J] with at least one report"
        )
    xp = array_namespace(agreed)
    own = xp.stack([deviations[..., j, :, j] for j in range(agents)], axis=-2)  # [..., J, P]
    saved = xp.clip(agreed - xp.min(own, axis=-1), min=0.0)
    size = xp.abs(agreed)
    some = size > 0.0
    relative = saved / xp.where(some, size, 1.0)
    return xp.where(some | (saved == 0.0), relative, xp.inf)


def _reply_costs(costs: Array, strategies: Sequence[Array], agent: int) -> Array:
    """Expected cost of each of an agent's actions [A_j] against the others' strategies."""
    xp = array_namespace(costs)
    table = xp.moveaxis(costs[..., agent], agent, 0)
    others = [strategy for j, strategy in enumerate(strategies) if j != agent]
    for strategy in reversed(others):
        table = table @ strategy
    return table
