"""Offline training: many worlds at once, on past days whose outcome is known."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from marlin.fleet.contract import OBJECTIVES
from marlin.fleet.simulator import step
from marlin.fleet.world import VALIDATION, World
from marlin.games.negotiation import Rules, starting_capital
from marlin.schedulers.learning.features import observe, state_size
from marlin.schedulers.learning.rewards import even_split, metric_table
from marlin.schedulers.learning.worlds import Worlds
from marlin.schedulers.marlin.agents import AGENTS, Hyperparameters, Learners
from marlin.schedulers.marlin.codec import action_size, decode
from marlin.schedulers.marlin.play import (
    agree,
    paid,
    propose,
    repeat,
    rewards,
    tensor,
    tried,
)
from marlin.schedulers.marlin.replay import DualReplay
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin
    from marlin.task import Task

CALLS_PER_ROUND = AGENTS + 2  # every proposal, the agreed plan, the even split


def make_learners(options: Marlin, world: World, seed: int) -> Learners:
    """Fresh agents for a world."""
    return Learners(
        state_size(world),
        action_size(world),
        Hyperparameters(
            actor_width=options.actor_width,
            critic_width=options.critic_width,
            actor_rate=options.actor_rate,
            critic_rate=options.critic_rate,
            temperature_rate=options.temperature_rate,
            discount=options.discount,
            target_rate=options.target_rate,
            target_entropy=options.target_entropy,
        ),
        seed,
    )


def make_replay(options: Marlin, world: World) -> DualReplay:
    """Empty buffers for a world."""
    return DualReplay(
        state_size(world),
        action_size(world),
        AGENTS,
        options.across_capacity,
        options.within_capacity,
    )


def pack(learners: Learners) -> dict[str, np.ndarray]:
    """Parameters of actor, critics, targets and temperatures, by name."""
    parts = {"actor": learners.actor, "critics": learners.critics, "targets": learners.targets}
    named = {
        f"{part}.{name}": value.numpy().copy()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    return named | {"log_temperature": learners.log_temperature.detach().numpy().copy()}


def unpack(learners: Learners, named: dict[str, np.ndarray]) -> None:
    """Load what `pack` gave."""
    parts = {"actor": learners.actor, "critics": learners.critics, "targets": learners.targets}
    for part, module in parts.items():
        module.load_state_dict(
            {
                name.removeprefix(f"{part}."): torch.as_tensor(value)
                for name, value in named.items()
                if name.startswith(f"{part}.")
            }
        )
    with torch.no_grad():
        learners.log_temperature.copy_(torch.as_tensor(named["log_temperature"]))


def train(options: Marlin, task: Task) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Train until the budget's simulated epochs are spent; weights and learning curve."""
    torch.set_num_threads(1)
    seed, budget = task.run.seed, task.run.budget
    rng = np.random.default_rng([seed, 1])
    world = task.world
    learners = make_learners(options, world, seed)
    replay = make_replay(options, world)
    worlds = Worlds(task, budget.worlds, rng)
    capital = starting_capital(tensor(worlds.weights()), Rules())
    rounds = max(budget.training_epochs // (budget.worlds * CALLS_PER_ROUND), budget.checkpoints)
    marks = set(np.linspace(0, rounds, budget.checkpoints + 1).round().astype(int))
    rows = validate(task, world, learners, 0)
    bar = tqdm(range(rounds), desc=f"marlin seed {seed}", disable=not sys.stderr.isatty())
    for done in bar:
        blend = options.blend_start * options.blend_decay**done
        capital = play_round(options, task, world, learners, replay, worlds, capital, blend)
        for _ in range(options.updates_per_round):
            batch, drawn = replay.draw(options.batch_size, options.across_share, rng)
            replay.reprioritise(drawn, learners.update(batch))
        if done + 1 in marks:
            spent = (done + 1) * budget.worlds * CALLS_PER_ROUND
            rows += validate(task, world, learners, spent)
    return pack(learners), rows


def play_round(
    options: Marlin, task: Task, world: World, learners: Learners, replay: DualReplay,
    worlds: Worlds, capital: Tensor, blend: float,
) -> Tensor:  # fmt: skip
    """One epoch of every world: propose, try, agree, carry out, remember; returns capital."""
    epoch, weights, rules = worlds.epoch, tensor(worlds.weights()), Rules()
    forecast, truth, upcoming = task.forecasts(epoch), task.truth(epoch), task.forecasts(epoch + 1)
    proposal = propose(learners, world, worlds.state, forecast, blend, explore=True)
    seen = proposal.state.numpy()
    reference = even_split(world, forecast, truth)
    after, offered = tried(world, worlds.state, proposal, forecast, truth)
    replay.within.add(
        np.repeat(seen, AGENTS, axis=0),
        proposal.rows(),
        rewards(offered, repeat(reference, AGENTS), options.drop_penalty),
        observe(world, after, repeat(upcoming, AGENTS)),
        options.tried_priority,
    )
    action = agree(learners, proposal, capital, weights, rules)
    state, outcome = step(world, worlds.state, decode(world, action, forecast), truth)
    replay.across.add(
        seen,
        action,
        rewards(outcome, reference, options.drop_penalty),
        observe(world, state, upcoming),
        options.across_priority,
    )
    capital = paid(capital, outcome, offered, rules)
    moved = torch.as_tensor(worlds.advance(state))[:, None]
    return torch.where(moved, starting_capital(tensor(worlds.weights()), rules), capital)


def validate(task: Task, world: World, learners: Learners, spent: int) -> list[dict[str, Any]]:
    """Deterministic policy of every scheme on the validation days; one row a scheme."""
    days, rules = np.array(task.days(VALIDATION)), Rules()
    weights = torch.tensor(list(SCHEMES.values())).repeat_interleave(len(days), 0)
    start = np.tile(days, len(SCHEMES))
    state = world.idle_state(len(start))
    capital = starting_capital(weights, rules)
    totals, arrived = np.zeros((len(start), len(OBJECTIVES))), np.zeros(len(start))
    for offset in range(world.epochs_per_day):
        forecast, truth = task.forecasts(start + offset), task.truth(start + offset)
        proposal = propose(learners, world, state, forecast, blend=0.0, explore=False)
        action = agree(learners, proposal, capital, weights, rules)
        offered = tried(world, state, proposal, forecast, forecast)[1]
        state, outcome = step(world, state, decode(world, action, forecast), truth)
        capital = paid(capital, outcome, offered, rules)
        metrics = metric_table(outcome)
        metrics[:, 0] *= outcome.arrived
        totals, arrived = totals + metrics, arrived + outcome.arrived
    totals[:, 0] /= arrived
    means = totals.reshape(len(SCHEMES), len(days), -1).mean(axis=1)
    return [
        {"training_epochs": spent, "variant": name or "balanced"}
        | dict(zip(OBJECTIVES, mean.tolist(), strict=True))
        for name, mean in zip(SCHEMES, means, strict=True)
    ]
