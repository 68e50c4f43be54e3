"""One epoch of MARLIN's council: what agents propose and try, what they agree on, what it pays.

Axes: R rows of a batch, N agents, S schemes that run side by side, F state, A action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import Inputs, Outcome, Plan, State
from marlin.fleet.world import World
from marlin.games import negotiation
from marlin.games.negotiation import Bargain
from marlin.schedulers.learning.networks import tensor
from marlin.schedulers.marlin import reward
from marlin.schedulers.marlin.agents import AGENTS, Learners
from marlin.schedulers.marlin.codec import action_size, heuristic, projected, state_size
from marlin.schedulers.marlin.replay import DualReplay
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin

ROSTER = torch.tensor(list(SCHEMES.values()))  # [S, N] weights of all schemes
BALANCED = 0  # its place in the roster


def make_learners(options: Marlin, world: World, seed: int) -> Learners:
    """Fresh agents for a world."""
    states, actions = state_size(world), action_size(world)
    return Learners(options, states, actions, len(world.sites), seed)


def make_replay(options: Marlin, world: World) -> DualReplay:
    """Empty buffers for a world."""
    return DualReplay(
        state_size(world),
        action_size(world),
        options.across_capacity,
        options.within_capacity,
        options.dual_buffer,
    )


def propose(
    learners: Learners, world: World, seen: np.ndarray, forecast: Inputs, blend: float,
    explore: bool,
) -> Tensor:  # fmt: skip
    """Every agent's action [R, N, A] in states [R, F].

    `blend` is the weight of the rule of thumb early in training; with `explore` they are tries.
    """
    actions = learners.propose(tensor(seen), explore)
    return torch.lerp(actions, tensor(heuristic(world, forecast)), blend) if blend else actions


def agree(
    learners: Learners, seen: np.ndarray, proposals: Tensor, capital: Tensor, weights: Tensor
) -> Bargain:
    """The negotiation of proposals [R, N, A] under capital and scheme weights [R, N]."""
    state = tensor(seen)
    return negotiation.negotiate(
        proposals,
        lambda actions: learners.values(state, actions),
        capital,
        weights,
        learners.options.rules,
        lambda action: projected(action, learners.sites),
    )


def envy(learners: Learners, seen: np.ndarray, proposals: Tensor, plans: Tensor) -> Tensor:
    """Share of value that agents lose to the schemes' plans, by their own critics, [R / S, N].

    Rows are (group, scheme); a group's schemes are averaged.
    """
    state, schemes = tensor(seen), len(ROSTER)
    with torch.no_grad():
        own = learners.values(state, proposals).diagonal(dim1=1, dim2=2)
        got = learners.values(state, plans[:, None])[..., 0]
    own, got = (value.reshape(-1, schemes, AGENTS).mean(1) for value in (own, got))
    return negotiation.loss_share(own, got)


def paid_capital(
    learners: Learners, world: World, capital: Tensor, outcome: Outcome, lost: Tensor
) -> Tensor:
    """Capital [G, N] of groups after what their schemes' plans led to, rows (group, scheme)."""
    table = tensor(reward.metrics(world, outcome, learners.options.per_request))
    metrics = table.reshape(-1, len(ROSTER), AGENTS)
    return negotiation.updated_capital(capital, metrics, lost, learners.options.rules)


def judged_from(options: Marlin, world: World, state: State) -> State:
    """The state that plans are paid from: the fleet's, or for `settled` one with all nodes on.

    Starting nodes takes minutes, and costs a plan more than all that tells it from others. What it
    costs is the change, which a state of four numbers a site does not show.
    """
    return world.idle_state(len(state.nodes_on)) if options.settled else state


def pay(learners: Learners, world: World, plan: Plan, outcome: Outcome) -> np.ndarray:
    """Every agent's reward [R, N] for what plans led to, over the running means so far."""
    options = learners.options
    if learners.mean is None:
        learners.mean = reward.next_mean(None, reward.metrics(world, outcome, options.per_request))
    return reward.paid(world, plan, outcome, learners.mean, options.per_request, options.damped)


def take_in(learners: Learners, world: World, outcome: Outcome) -> None:
    """Move the running means by the metrics of what was carried out."""
    options = learners.options
    table = reward.metrics(world, outcome, options.per_request)
    learners.mean = reward.next_mean(learners.mean, table)


def learn(learners: Learners, replay: DualReplay, updates: int, rng: np.random.Generator) -> None:
    """So many gradient steps of all agents on drawn batches, if there is anything to draw."""
    options = learners.options
    for _ in range(updates if replay.ready else 0):
        batch, drawn = replay.draw(options.batch_size, options.across_share, rng)
        replay.reprioritise(drawn, learners.update(batch))
