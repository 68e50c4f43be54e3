"""Offline training: many worlds at once, on past days whose outcome is known.

Worlds come in groups: one day for all schemes of the roster side by side, each with a state of its
own and one capital between them, as when the schemes are scored.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from marlin.fleet.contract import OBJECTIVES, Inputs, State, repeat
from marlin.fleet.simulator import step
from marlin.fleet.world import TRAIN, VALIDATION
from marlin.games.negotiation import starting_capital
from marlin.schedulers.learning.practice import fresh_where
from marlin.schedulers.learning.rewards import metric_table
from marlin.schedulers.learning.scheduler import keep_better
from marlin.schedulers.marlin.agents import AGENTS, Learners
from marlin.schedulers.marlin.codec import decode, observe
from marlin.schedulers.marlin.council import (
    ROSTER,
    agree,
    envy,
    judged_from,
    learn,
    make_learners,
    make_replay,
    paid_capital,
    pay,
    propose,
    take_in,
)
from marlin.schedulers.marlin.replay import DualReplay, tried_scale
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin
    from marlin.task import Task


class Groups:
    """Groups of worlds, each walking through a day with all schemes, then moved to another.

    Rows are (group, scheme).
    """

    def __init__(
        self, options: Marlin, task: Task, starts: np.ndarray, offsets: np.ndarray
    ) -> None:
        self.task, self.rules = task, options.rules
        self.start, self.offset = starts, offsets
        self.state = task.world.idle_state(len(starts) * len(ROSTER))
        self.weights = ROSTER.repeat(len(starts), 1)
        self.capital = self._fresh_capital()

    @property
    def epoch(self) -> np.ndarray:
        """Current epoch of every row."""
        return np.repeat(self.start + self.offset, len(ROSTER))

    def capital_rows(self) -> Tensor:
        """Capital [R, N] of every row."""
        return self.capital.repeat_interleave(len(ROSTER), 0)

    def advance(self, state: State) -> None:
        """Move every world one epoch on."""
        self.state = state
        self.offset = self.offset + 1

    def renew(self, days: np.ndarray, rng: np.random.Generator) -> None:
        """Send groups whose day is over to another day, all nodes on and capital as it starts."""
        done = self.offset >= self.task.world.epochs_per_day - 1
        self.start = np.where(done, rng.choice(days, len(done)), self.start)
        self.offset = np.where(done, 0, self.offset)
        rows = np.repeat(done, len(ROSTER))
        self.state = fresh_where(rows, self.state, self.task.world.idle_state(len(rows)))
        over = torch.as_tensor(done)[:, None]
        self.capital = torch.where(over, self._fresh_capital(), self.capital)

    def _fresh_capital(self) -> Tensor:
        return starting_capital(ROSTER, self.rules).expand(len(self.start), -1)


def train(options: Marlin, task: Task) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Train until the budget's simulated epochs are spent; weights by scheme, learning curve."""
    seed, budget, world = task.run.seed, task.run.budget, task.world
    rng = np.random.default_rng([seed, 1])
    learners, replay = make_learners(options, world, seed), make_replay(options, world)
    learners.transfer(options.earlier())
    days = np.array(task.days(TRAIN))
    count = max(budget.worlds // len(ROSTER), 1)
    offsets = rng.integers(0, world.epochs_per_day - 1, count)
    groups = Groups(options, task, rng.choice(days, count), offsets)
    calls = count * len(ROSTER) * (1 + options.settled + AGENTS * options.training_tries)
    rounds = max(budget.training_epochs // calls, budget.checkpoints)
    marks = set(np.linspace(0, rounds, budget.checkpoints + 1).round().astype(int))
    rows = validate(options, task, learners, 0)
    kept = dict.fromkeys(SCHEMES, learners.pack())
    best = dict.fromkeys(SCHEMES, np.inf)
    bar = tqdm(range(rounds), desc=f"{options.name} seed {seed}", disable=not sys.stderr.isatty())
    for done in bar:
        play_epoch(learners, groups, replay, options.blend_start * options.blend_decay**done)
        groups.renew(days, rng)
        learn(learners, replay, options.training_updates, rng)
        if done + 1 in marks:
            now = validate(options, task, learners, (done + 1) * calls)
            rows += now
            keep_better(kept, best, learners.pack(), now)
    learned = {
        f"{variant}/{name}": value
        for variant, named in kept.items()
        for name, value in named.items()
    }
    return learned, rows


def play_epoch(learners: Learners, groups: Groups, replay: DualReplay, blend: float) -> None:
    """One epoch of every world: propose, try, agree, carry out, remember, pay."""
    options, task, world, epoch = learners.options, groups.task, groups.task.world, groups.epoch
    forecast, truth = foreseen(options, task, epoch), task.truth(epoch)
    seen, upcoming = (observe(world, foreseen(options, task, e)) for e in (epoch, epoch + 1))
    for _ in range(options.training_tries):
        tries = propose(learners, world, seen, forecast, blend, explore=True).flatten(0, 1).numpy()
        start = repeat(groups.state, AGENTS)
        plans = decode(options, world, tries, repeat(forecast, AGENTS), start)
        outcome = step(world, judged_from(options, world, start), plans, repeat(truth, AGENTS))[1]
        replay.within.add(
            np.repeat(seen, AGENTS, axis=0),
            tries,
            pay(learners, world, plans, outcome),
            np.repeat(upcoming, AGENTS, axis=0),
            tried_scale(len(tries), 1.0, options.hindsight_priority * options.hindsight),
        )
    proposals = propose(learners, world, seen, forecast, blend, explore=False)
    bargain = agree(learners, seen, proposals, groups.capital_rows(), groups.weights)
    plan = decode(options, world, bargain.plan.numpy(), forecast, groups.state)
    state, outcome = step(world, groups.state, plan, truth)
    if options.settled:
        outcome = step(world, judged_from(options, world, groups.state), plan, truth)[1]
    replay.across.add(
        seen, bargain.plan, pay(learners, world, plan, outcome), upcoming, options.across_priority
    )
    take_in(learners, world, outcome)
    lost = envy(learners, seen, proposals, bargain.plan)
    groups.capital = paid_capital(learners, world, groups.capital, outcome, lost)
    groups.advance(state)


def foreseen(options: Marlin, task: Task, epochs: np.ndarray) -> Inputs:
    """What plans are made with: the forecast, unless the method plans on the truth."""
    return task.truth(epochs) if options.plans_on_truth else task.forecasts(epochs)


def validate(options: Marlin, task: Task, learners: Learners, spent: int) -> list[dict[str, Any]]:
    """Mean daily objectives of every scheme on the validation days, without learning; one row each.

    Beside what the learning curve holds, a row has the share of requests dropped.
    """
    world, days = task.world, np.array(task.days(VALIDATION))
    groups = Groups(options, task, days, np.zeros_like(days))
    size = len(days) * len(ROSTER)
    totals, arrived, dropped = np.zeros((size, len(OBJECTIVES))), np.zeros(size), np.zeros(size)
    for _ in range(world.epochs_per_day):
        epoch = groups.epoch
        forecast = foreseen(options, task, epoch)
        seen = observe(world, forecast)
        proposals = propose(learners, world, seen, forecast, 0.0, explore=False)
        bargain = agree(learners, seen, proposals, groups.capital_rows(), groups.weights)
        plan = decode(options, world, bargain.plan.numpy(), forecast, groups.state)
        state, outcome = step(world, groups.state, plan, task.truth(epoch))
        lost = envy(learners, seen, proposals, bargain.plan)
        groups.capital = paid_capital(learners, world, groups.capital, outcome, lost)
        groups.advance(state)
        metrics = metric_table(outcome)
        metrics[:, 0] *= outcome.arrived
        totals, arrived = totals + metrics, arrived + outcome.arrived
        dropped = dropped + outcome.dropped
    totals[:, 0] /= arrived
    table = np.column_stack([totals, dropped / arrived])
    means = table.reshape(len(days), len(ROSTER), -1).mean(axis=0)
    return [
        {"training_epochs": spent, "variant": name or "balanced"}
        | dict(zip((*OBJECTIVES, "dropped_share"), mean.tolist(), strict=True))
        for name, mean in zip(SCHEMES, means, strict=True)
    ]
