"""From nothing to a policy with an agreement: training, its learning curve, and the bargaining."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.world import VALIDATION
from marlin.schedulers.marlin_nash.bargaining import Agreement, agree, play
from marlin.schedulers.marlin_nash.network import Policy
from marlin.schedulers.marlin_nash.training import (
    Practice,
    heard_weights,
    learn,
    make_record,
    spread,
)
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin_nash import MarlinNash
    from marlin.task import Task

NETWORK, AGREEMENT = "network.", "agreement."


def make_policy(options: MarlinNash, seed: int) -> Policy:
    """A policy that has learned nothing."""
    return Policy(options.width, options.messages, torch.Generator().manual_seed(seed))


def train(options: MarlinNash, task: Task) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Train until the budget's simulated epochs are spent, then agree; weights, learning curve."""
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

    rows = validated(0)
    marks = list(np.linspace(0, budget.training_epochs, budget.checkpoints + 1)[1:-1])
    for spent in learn(options, task, policy, practice):
        while marks and spent >= marks[0]:
            marks.pop(0)
            rows += validated(spent)
    rows += validated(practice.spent)
    return pack(policy, agreed(options, task, policy, practice)), rows


def agreed(options: MarlinNash, task: Task, policy: Policy, practice: Practice) -> Agreement:
    """What the agents agree on, on some of the days that were trained on."""
    days = torch.as_tensor(spread(practice.days, options.bargaining_days))
    return agree(
        policy, options.market, practice.home.fleet, practice.record, days,
        task.world.epochs_per_day, options.terms,
    )  # fmt: skip


def pack(policy: Policy, agreement: Agreement) -> dict[str, np.ndarray]:
    """What was learned, by name."""
    named = {f"{NETWORK}{k}": v.numpy().copy() for k, v in policy.state_dict().items()}
    agreed = {f"{AGREEMENT}{name}": value for name, value in asdict(agreement).items()}
    return named | agreed


def unpack(policy: Policy, named: dict[str, np.ndarray]) -> Agreement:
    """Load what `pack` gave."""
    network, agreement = (
        {n.removeprefix(start): v for n, v in named.items() if n.startswith(start)}
        for start in (NETWORK, AGREEMENT)
    )
    policy.load_state_dict({name: torch.as_tensor(value) for name, value in network.items()})
    return Agreement(**agreement)
