"""MARLIN at work: one world, one epoch at a time, on forecasts, learning as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from marlin.fleet.contract import Inputs, Outcome, Plan, State, convert
from marlin.fleet.world import World
from marlin.games.negotiation import Rules, starting_capital, updated_capital
from marlin.schedulers.base import Observation
from marlin.schedulers.marlin.agents import AGENTS
from marlin.schedulers.marlin.codec import decode, observe
from marlin.schedulers.marlin.play import (
    SCHEMES,
    agree,
    even_split,
    metric_table,
    propose,
    repeat,
    rewards,
    to_torch,
)
from marlin.schedulers.marlin.training import make_learners, make_replay, unpack

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin


class Online:
    """State of the method between two decisions of a day."""

    def __init__(
        self, options: Marlin, world: World, seed: int, variant: str,
        trained: dict[str, np.ndarray] | None,
    ) -> None:  # fmt: skip
        torch.set_num_threads(1)
        self.options, self.world = options, world.to_torch()
        self.rng = np.random.default_rng([seed, 3, list(SCHEMES).index(variant)])
        self.learners = make_learners(options, world, seed)
        if trained:
            unpack(self.learners, trained)
        self.replay = make_replay(options, world)
        self.weights = torch.tensor([SCHEMES[variant]])
        self.capital = starting_capital(self.weights, Rules())
        self.pending: tuple[Tensor, Tensor, Tensor] | None = None

    def plan(self, observation: Observation) -> Plan:
        """Explore on the forecast, learn a little, propose, agree."""
        forecast: Inputs = to_torch(observation.forecast)
        state: State = to_torch(observation.state)
        self.seen = observe(self.world, state, forecast)
        if self.pending is not None:
            self.replay.across.add(*self.pending, self.seen, self.options.across_priority)
        self._explore(observation, forecast)
        proposal = propose(self.learners, self.world, state, forecast, 0.0, explore=False)
        plans = decode(self.world, proposal.actions[0], repeat(forecast, AGENTS))
        self.offered = metric_table(simulate(observation, plans)[1]).T[None]
        self.action = agree(self.learners, proposal, self.capital, self.weights, Rules())
        return to_numpy(decode(self.world, self.action, forecast))

    def observe(self, outcome: Outcome) -> None:
        """Pay the agents and learn from what was carried out."""
        real: Outcome = to_torch(outcome)
        reward = rewards(real, self.reference, self.options.drop_penalty)
        self.capital = updated_capital(self.capital, metric_table(real), self.offered, Rules())
        self.pending = (self.seen, self.action, reward)
        self._learn(self.options.online_updates)

    def _explore(self, observation: Observation, forecast: Inputs) -> None:
        """Try sampled proposals of every agent on the forecast and learn from all of them."""
        observation.budget.take(1)
        self.reference = even_split(self.world, forecast, forecast)
        tries = self.options.explorations * AGENTS
        if not tries:
            return
        seen = self.seen.expand(self.options.explorations, -1)
        with torch.no_grad():
            actions = self.learners.actor.sample(seen, self.learners.generator)[0].flatten(0, 1)
        plans = decode(self.world, actions, repeat(forecast, tries))
        after, outcome = simulate(observation, plans)
        self.replay.within.add(
            self.seen.expand(tries, -1),
            actions,
            rewards(outcome, repeat(self.reference, tries), self.options.drop_penalty),
            observe(self.world, after, repeat(forecast, tries)),
            self.options.tried_priority,
        )
        self._learn(self.options.exploration_updates)

    def _learn(self, updates: int) -> None:
        if not self.replay.across.size:
            return
        for _ in range(updates):
            batch, drawn = self.replay.draw(
                self.options.batch_size, self.options.across_share, self.rng
            )
            self.replay.reprioritise(drawn, self.learners.update(batch))


def to_numpy(plan: Plan) -> Plan:
    """A plan as NumPy arrays in double precision."""
    return convert(plan, lambda a: a.double().numpy())


def simulate(observation: Observation, plans: Plan) -> tuple[State, Outcome]:
    """Outcome of plans on the forecast, within the budget, as tensors."""
    after, outcome = observation.simulate(to_numpy(plans))
    return to_torch(after), to_torch(outcome)
