"""One epoch of MARLIN for a batch of worlds: propose, try, negotiate; and what it teaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import Inputs, Outcome, State, repeat
from marlin.fleet.simulator import step
from marlin.fleet.world import World
from marlin.games import negotiation
from marlin.schedulers.learning.features import observe
from marlin.schedulers.learning.rewards import dropped_share, metric_table, metrics_per_served
from marlin.schedulers.marlin.agents import AGENTS, Learners
from marlin.schedulers.marlin.codec import decode, heuristic

REWARD_SCALE = (12.0, 8.0, 8.0, 8.0)  # the paper's weights of the metric term
RATIO_REACH = (
    4.0  # beyond it a metric is as good or bad as at it: one cold start must not drown the rest
)
SHIFT_USD = 0.02  # per kWh: keeps the logarithm defined when energy prices are negative


def tensor(values: np.ndarray) -> Tensor:
    """What the networks take: single precision."""
    return torch.as_tensor(values, dtype=torch.float32)


@dataclass(frozen=True)
class Proposal:
    """What the agents put on the table."""

    state: Tensor  # [B, F]
    actions: Tensor  # [B, N, A]

    def rows(self) -> np.ndarray:
        """Actions with agents folded into the batch, [B x N, A]."""
        return self.actions.flatten(0, 1).numpy()


def propose(
    learners: Learners, world: World, state: State, forecast: Inputs, blend: float, explore: bool
) -> Proposal:
    """Every agent's proposal; `blend` is the weight of the rule of thumb early in training."""
    seen = tensor(observe(world, state, forecast))
    with torch.no_grad():
        if explore:
            actions = learners.actor.sample(seen, learners.generator)[0]
        else:
            actions = learners.actor.best(seen)
    actions = actions.transpose(0, 1)
    if blend > 0.0:
        actions = (1.0 - blend) * actions + blend * tensor(heuristic(world, forecast))
    return Proposal(seen, actions)


def agree(
    learners: Learners, proposal: Proposal, capital: Tensor, weights: Tensor,
    rules: negotiation.Rules,
) -> np.ndarray:  # fmt: skip
    """The negotiated actions [B, A] under scheme weights [B, N]."""

    def critics(actions: Tensor) -> Tensor:
        return learners.values(proposal.state, actions)

    agreed = negotiation.negotiate(proposal.actions, critics, capital, weights, rules)
    return agreed.detach().numpy()


def rewards(outcome: Outcome, reference: Outcome, weight_drops: float) -> np.ndarray:
    """Each agent's reward [B, N]: minus the scaled logarithm of its metric over the even split's.

    Metrics are per request served, so that turning requests away earns nothing; a share of them
    dropped costs every agent `weight_drops`. Prices may be negative: both costs are shifted by
    `SHIFT_USD` a kWh before they are compared.
    """

    ratio = metrics_per_served(outcome, SHIFT_USD) / metrics_per_served(reference, SHIFT_USD)
    lost = dropped_share(outcome)[:, None]
    clipped = np.clip(ratio, 1.0 / RATIO_REACH, RATIO_REACH)
    return -np.array(REWARD_SCALE) * np.log(clipped) - weight_drops * lost


def tried(
    world: World, state: State, proposal: Proposal, forecast: Inputs, inputs: Inputs
) -> tuple[State, Outcome]:
    """Outcome of every proposal, worlds repeated: rows are (world, agent)."""
    many = repeat(forecast, AGENTS)
    plans = decode(world, proposal.rows(), many)
    return step(world, repeat(state, AGENTS), plans, repeat(inputs, AGENTS))


def paid(capital: Tensor, outcome: Outcome, offered: Outcome, rules: negotiation.Rules) -> Tensor:
    """Capital after an epoch; `offered` are the proposals' outcomes, rows (world, agent)."""
    table = tensor(metric_table(offered)).reshape(-1, AGENTS, AGENTS).transpose(1, 2)
    return negotiation.updated_capital(capital, tensor(metric_table(outcome)), table, rules)
