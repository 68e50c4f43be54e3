"""One epoch of MARLIN for a batch of worlds: propose, try, negotiate; and what it teaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import Fields, Inputs, Outcome, State, convert
from marlin.fleet.power_down import sized_plan
from marlin.fleet.simulator import step
from marlin.fleet.world import World
from marlin.games import negotiation
from marlin.schedulers.marlin.agents import AGENTS, Learners
from marlin.schedulers.marlin.codec import decode, heuristic, observe

SCHEMES = {
    "": (0.25, 0.25, 0.25, 0.25),
    "ttft": (1.0, 0.0, 0.0, 0.0),
    "carbon": (0.0, 1.0, 0.0, 0.0),
    "water": (0.0, 0.0, 1.0, 0.0),
    "cost": (0.0, 0.0, 0.0, 1.0),
}
REFERENCE_TARGET = 0.75
REWARD_SCALE = (12.0, 8.0, 8.0, 8.0)  # the paper's weights of the metric term
RATIO_REACH = (
    4.0  # beyond it a metric is as good or bad as at it: one cold start must not drown the rest
)
SHIFT_USD = 0.02  # per kWh: keeps the logarithm defined when energy prices are negative


def to_torch(batch: Fields) -> Fields:
    """A dataclass of NumPy arrays as float32 tensors."""
    return convert(batch, lambda a: torch.as_tensor(np.asarray(a), dtype=torch.float32))


def repeat(batch: Fields, times: int) -> Fields:
    """Each world `times` times in a row."""
    return convert(batch, lambda a: a.repeat_interleave(times, dim=0))


@dataclass(frozen=True)
class Proposal:
    """What the agents put on the table."""

    state: Tensor  # [B, F]
    actions: Tensor  # [B, N, A]


def propose(
    learners: Learners, world: World, state: State, forecast: Inputs, blend: float, explore: bool
) -> Proposal:
    """Every agent's proposal; `blend` is the weight of the rule of thumb early in training."""
    seen = observe(world, state, forecast)
    with torch.no_grad():
        if explore:
            actions = learners.actor.sample(seen, learners.generator)[0]
        else:
            actions = learners.actor.best(seen)
    actions = actions.transpose(0, 1)
    if blend > 0.0:
        actions = (1.0 - blend) * actions + blend * heuristic(world, forecast)
    return Proposal(seen, actions)


def agree(
    learners: Learners, proposal: Proposal, capital: Tensor, weights: Tensor,
    rules: negotiation.Rules,
) -> Tensor:  # fmt: skip
    """The negotiated action [B, A] under scheme weights [B, N]."""

    def critics(actions: Tensor) -> Tensor:
        return learners.values(proposal.state, actions)

    return negotiation.negotiate(proposal.actions, critics, capital, weights, rules).detach()


def even_split(world: World, forecast: Inputs, inputs: Inputs) -> Outcome:
    """What the even split, planned on `forecast`, costs a warm fleet when `inputs` come true.

    Rewards are measured against it. It starts from everything on and no backlog, whatever state
    the world is in: a reference that suffered from the state would reward staying in bad ones.
    """
    demand = forecast.arrival_rate_per_s
    constants = world.constants
    routing = torch.full((*demand.shape, len(world.sites)), 1.0 / len(world.sites))
    plan = sized_plan(world, routing, demand, REFERENCE_TARGET)
    backlog = torch.zeros(len(demand), len(world.sites), *demand.shape[2:])
    warm = State(backlog, constants.nodes.expand(len(demand), *constants.nodes.shape))
    with torch.no_grad():
        return step(world, warm, plan, inputs)[1]


def rewards(outcome: Outcome, reference: Outcome, weight_drops: float) -> Tensor:
    """Each agent's reward [B, N]: minus the scaled logarithm of its metric over the even split's.

    Metrics are per request served, so that turning requests away earns nothing; a share of them
    dropped costs every agent `weight_drops`. Prices may be negative: both costs are shifted by
    `SHIFT_USD` a kWh before they are compared.
    """
    shift = torch.zeros(len(SCHEMES) - 1)
    shift[3] = SHIFT_USD

    def metric(of: Outcome) -> Tensor:
        table = metric_table(of) + shift * of.energy_kwh[:, None]
        served = (1.0 - of.dropped / of.arrived.clamp_min(1e-9)).clamp(0.01, 1.0)[:, None]
        return torch.cat([table[:, :1], table[:, 1:] / served], dim=-1).clamp_min(1e-3)

    ratio = (metric(outcome) / metric(reference)).clamp(1.0 / RATIO_REACH, RATIO_REACH)
    lost = (outcome.dropped / outcome.arrived.clamp_min(1e-9))[:, None]
    return -torch.tensor(REWARD_SCALE) * torch.log(ratio) - weight_drops * lost


def simulate(
    world: World, state: State, action: Tensor, forecast: Inputs, inputs: Inputs
) -> tuple[State, Outcome]:
    """Carry out actions planned on `forecast` when `inputs` come true."""
    with torch.no_grad():
        return step(world, state, decode(world, action, forecast), inputs)


def metric_table(outcome: Outcome) -> Tensor:
    """Objectives as [B, N]."""
    return torch.stack(outcome.objectives(), dim=-1)


def tried(
    world: World, state: State, proposal: Proposal, forecast: Inputs, inputs: Inputs
) -> tuple[State, Outcome]:
    """Outcome of every proposal, worlds repeated: rows are (world, agent)."""
    actions = proposal.actions.reshape(-1, proposal.actions.shape[-1])
    return simulate(
        world, repeat(state, AGENTS), actions, repeat(forecast, AGENTS), repeat(inputs, AGENTS)
    )
