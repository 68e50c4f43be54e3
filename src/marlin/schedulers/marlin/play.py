"""One epoch of MARLIN for a batch of worlds: propose, try, negotiate; and what it teaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import Inputs, Outcome, State, repeat
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.fleet.world import World
from marlin.games import negotiation
from marlin.schedulers.marlin.agents import AGENTS, Learners
from marlin.schedulers.marlin.codec import decode, heuristic, observe

REFERENCE_TARGET = 0.75
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


def even_split(world: World, forecast: Inputs, inputs: Inputs) -> Outcome:
    """What the even split, planned on `forecast`, costs a warm fleet when `inputs` come true.

    Rewards are measured against it. It starts from everything on and no backlog, whatever state
    the world is in: a reference that suffered from the state would reward staying in bad ones.
    """
    demand = forecast.arrival_rate_per_s
    routing = np.full((*demand.shape, len(world.sites)), 1.0 / len(world.sites))
    plan = sized_plan(world, routing, demand, REFERENCE_TARGET)
    return step(world, world.idle_state(len(demand)), plan, inputs)[1]


def rewards(outcome: Outcome, reference: Outcome, weight_drops: float) -> np.ndarray:
    """Each agent's reward [B, N]: minus the scaled logarithm of its metric over the even split's.

    Metrics are per request served, so that turning requests away earns nothing; a share of them
    dropped costs every agent `weight_drops`. Prices may be negative: both costs are shifted by
    `SHIFT_USD` a kWh before they are compared.
    """

    def metric(of: Outcome) -> np.ndarray:
        served = np.clip(1.0 - of.dropped / np.clip(of.arrived, 1e-9, None), 0.01, 1.0)
        table = metric_table(of)
        table[:, 3] += SHIFT_USD * of.energy_kwh
        table[:, 1:] /= served[:, None]
        return np.clip(table, 1e-3, None)

    ratio = np.clip(metric(outcome) / metric(reference), 1.0 / RATIO_REACH, RATIO_REACH)
    lost = (outcome.dropped / np.clip(outcome.arrived, 1e-9, None))[:, None]
    return -np.array(REWARD_SCALE) * np.log(ratio) - weight_drops * lost


def metric_table(outcome: Outcome) -> np.ndarray:
    """Objectives as [B, N]."""
    return np.stack(outcome.objectives(), axis=-1)


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
