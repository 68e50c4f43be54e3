"""Training by slopes through the simulator: what a plan costs is differentiated, not guessed.

Worlds of several fleets walk through days; each has weights of its own for the objectives. A step
unrolls some epochs and follows the slope of the weighted sum of the logarithms of a day's costs: a
day on which a resource is cheap counts as much as another, and so does a resource of which little
is left to save. Planning sees forecasts alone, costs are those of what came true, so that the
policy learns how much to trust a forecast. Where slopes say nothing (a request is dropped or not)
the penalty's slope through the backlog stands in.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from marlin.fleet.contract import OBJECTIVES, State
from marlin.fleet.simulator import step
from marlin.fleet.world import TRAIN, VALIDATION
from marlin.schedulers.marlin_nash.bargaining import PLAYS, Agreement, agree, play, untried
from marlin.schedulers.marlin_nash.deciding import decide
from marlin.schedulers.marlin_nash.network import Policy
from marlin.schedulers.marlin_nash.practice import (
    EVEN_EPOCHS,
    Practice,
    Walk,
    heard_weights,
    make_record,
    spread,
    totals,
)
from marlin.schedulers.marlin_nash.tokens import make_tokens
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin_nash import MarlinNash
    from marlin.task import Task

LAST_RATE = 0.02  # of the learning rate, at the end
AVERAGE = 0.98  # of the parameters that decide: they follow those that learn
BARGAINING_SHARE = 0.2  # of the budget, at most
NETWORK, AGREEMENT, DEMAND_ERROR = "network.", "agreement.", "demand_error"


def make_policy(options: MarlinNash, seed: int) -> Policy:
    """A policy that has learned nothing."""
    return Policy(options.width, options.messages, torch.Generator().manual_seed(seed))


def train(options: MarlinNash, task: Task) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Train and agree until the budget's simulated epochs are spent; weights, learning curve."""
    torch.set_num_threads(1)
    seed, budget = task.run.seed, task.run.budget
    policy = make_policy(options, seed)
    practice = Practice(options, task, np.random.default_rng([seed, 1]))
    validation = np.array(task.days(VALIDATION))
    record = make_record(task, validation, options.lookahead)
    first = torch.arange(len(validation)) * task.world.epochs_per_day

    def validated(spent: int) -> list[dict[str, Any]]:
        names = list(SCHEMES)
        weights = heard_weights(torch.tensor(list(SCHEMES.values())), options.least_weight)
        costs, _ = play(
            policy, options.market, practice.home.fleet, record, first.repeat(len(names)),
            weights.repeat_interleave(len(first), 0), task.world.epochs_per_day,
        )  # fmt: skip
        means = costs.reshape(len(names), len(first), -1).mean(dim=1)
        return [
            {"training_epochs": spent, "variant": name or "balanced"}
            | dict(zip(OBJECTIVES, values, strict=True))
            for name, values in zip(names, means.tolist(), strict=True)
        ]

    days = bargaining_days(options, task)
    goal = budget.training_epochs - days * PLAYS * task.world.epochs_per_day
    rows = validated(0)
    marks = list(np.linspace(0, goal, budget.checkpoints + 1)[1:-1])
    for spent in learn(options, task, policy, practice, goal):
        if marks and spent >= marks[0]:
            marks = [mark for mark in marks if mark > spent]
            rows += validated(spent)
    # The last step may have reached a mark too, before parameters were averaged.
    rows = [row for row in rows if row["training_epochs"] != practice.spent]
    rows += validated(practice.spent)
    agreement = agreed(options, task, policy, practice, days)
    return pack(policy, agreement, practice.demand_error), rows


def bargaining_days(options: MarlinNash, task: Task) -> int:
    """Days that the agents bargain about: as many as `BARGAINING_SHARE` of the budget affords."""
    if not options.bargaining:
        return 0
    each = PLAYS * task.world.epochs_per_day
    affordable = int(BARGAINING_SHARE * task.run.budget.training_epochs / each)
    return min(options.bargaining_days, affordable, len(task.days(TRAIN)))


def agreed(
    options: MarlinNash, task: Task, policy: Policy, practice: Practice, days: int
) -> Agreement:
    """What the agents agree on, on some of the training days; on none, weights by power."""
    if not days:
        return untried(options.terms)
    first = torch.as_tensor(spread(practice.days, days))
    return agree(
        policy, options.market, practice.home.fleet, practice.record, first,
        task.world.epochs_per_day, options.terms,
    )  # fmt: skip


def learn(
    options: MarlinNash, task: Task, policy: Policy, practice: Practice, goal: int
) -> Iterator[int]:
    """Follow slopes while `goal` simulated epochs allow another step; yields how many were used."""
    # A new fleet and a new day for every world may have to be looked up.
    stride = options.worlds * (options.horizon + 2 * EVEN_EPOCHS)
    optimiser = torch.optim.Adam(policy.parameters(), options.rate)
    deciding = {name: value.clone() for name, value in policy.state_dict().items()}
    bar = tqdm(
        total=goal, desc=f"{options.name} seed {task.run.seed}", unit="epoch",
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        while practice.spent + stride <= goal:
            share = practice.spent / goal
            for group in optimiser.param_groups:
                cosine = 0.5 * (1.0 + math.cos(math.pi * share))
                group["lr"] = options.rate * (LAST_RATE + (1.0 - LAST_RATE) * cosine)
            walk = practice.next()
            loss, state, ratios = unrolled(options, policy, practice, walk)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0, error_if_nonfinite=True)
            optimiser.step()
            practice.advance(walk, state, ratios)
            bar.update(practice.spent - bar.n)
            for name, value in policy.state_dict().items():
                deciding[name].lerp_(value, 1.0 - AVERAGE)
            yield practice.spent
    policy.load_state_dict(deciding)


def unrolled(
    options: MarlinNash, policy: Policy, practice: Practice, walk: Walk
) -> tuple[Tensor, State, Tensor]:
    """Loss of a horizon over all worlds of a walk, the state after it, and what was paid [B, J].

    The loss is the mean of costs over those of the even split on the same day, weighted; the slope
    of their logarithms has weights over what the world has paid lately.
    """
    pools, state = walk.fleet.pools, walk.state
    # Steps have no slope; and a policy that is rescued would learn to keep too few nodes.
    smooth = replace(options.market, rounds=options.rounds, least_nodes=0.0, rescue=False)
    reference = walk.reference
    weights = walk.weights / walk.paid if options.logarithmic else walk.weights
    cost, paid = torch.zeros(len(weights)), torch.zeros_like(weights)
    for ahead in range(options.horizon):
        known = walk.fleet.inputs(practice.record, practice.days, walk.day, walk.offset + ahead)
        tokens = make_tokens(pools, state, known.forecast, known.later, walk.weights)
        plan = decide(pools, tokens, policy(tokens, pools.has_nodes), smooth).plan
        state, outcome = step(pools.world, state, plan, known.truth)
        practice.spent += len(cost)
        ratios = totals(outcome) / reference
        paid = paid + ratios.detach() / options.horizon
        cost = cost + (weights * ratios).sum(dim=1)
        cost = cost + options.drop_penalty * outcome.dropped / outcome.arrived
    return cost.mean() / options.horizon, state, paid


def pack(policy: Policy, agreement: Agreement, demand_error: float) -> dict[str, np.ndarray]:
    """What was learned, by name, and how far demand was from its forecast meanwhile."""
    named = {f"{NETWORK}{k}": v.numpy().copy() for k, v in policy.state_dict().items()}
    agreed = {f"{AGREEMENT}{name}": value for name, value in asdict(agreement).items()}
    return named | agreed | {DEMAND_ERROR: np.array(demand_error)}


def unpack(policy: Policy, named: dict[str, np.ndarray]) -> Agreement:
    """Load what `pack` gave."""
    network, agreement = (
        {n.removeprefix(start): v for n, v in named.items() if n.startswith(start)}
        for start in (NETWORK, AGREEMENT)
    )
    policy.load_state_dict({name: torch.as_tensor(value) for name, value in network.items()})
    return Agreement(**agreement)
