"""MARLIN at work: one world, one epoch at a time, on forecasts, learning as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from marlin.fleet.contract import Outcome, Plan
from marlin.fleet.world import World
from marlin.games.negotiation import Rules, starting_capital
from marlin.schedulers.base import Observation
from marlin.schedulers.learning.features import observe
from marlin.schedulers.learning.rewards import even_split
from marlin.schedulers.marlin.agents import AGENTS
from marlin.schedulers.marlin.codec import decode
from marlin.schedulers.marlin.play import (
    agree,
    paid,
    propose,
    repeat,
    rewards,
    tensor,
)
from marlin.schedulers.marlin.training import make_learners, make_replay, unpack
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin


class Online:
    """State of the method between two decisions of a day."""

    def __init__(
        self, options: Marlin, world: World, seed: int, variant: str,
        trained: dict[str, np.ndarray] | None,
    ) -> None:  # fmt: skip
        torch.set_num_threads(1)
        self.options, self.world = options, world
        self.rng = np.random.default_rng([seed, 3, list(SCHEMES).index(variant)])
        self.learners = make_learners(options, world, seed)
        if trained:
            unpack(self.learners, trained)
        self.replay = make_replay(options, world)
        self.weights = torch.tensor([SCHEMES[variant]])
        self.capital = starting_capital(self.weights, Rules())
        self.pending: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def plan(self, observation: Observation) -> Plan:
        """Explore on the forecast, learn a little, propose, agree."""
        forecast, state = observation.forecast, observation.state
        self.seen = observe(self.world, state, forecast)
        if self.pending is not None:
            self.replay.across.add(*self.pending, self.seen, self.options.across_priority)
        self._explore(observation)
        proposal = propose(self.learners, self.world, state, forecast, 0.0, explore=False)
        tries = decode(self.world, proposal.rows(), repeat(forecast, AGENTS))
        self.offered = observation.simulate(tries)[1]
        self.action = agree(self.learners, proposal, self.capital, self.weights, Rules())
        return decode(self.world, self.action, forecast)

    def observe(self, outcome: Outcome) -> None:
        """Pay the agents and learn from what was carried out."""
        reward = rewards(outcome, self.reference, self.options.drop_penalty)
        self.capital = paid(self.capital, outcome, self.offered, Rules())
        self.pending = (self.seen, self.action, reward)
        self._learn(self.options.online_updates)

    def _explore(self, observation: Observation) -> None:
        """Try sampled proposals of every agent on the forecast and learn from all of them."""
        forecast = observation.forecast
        observation.budget.take(1)
        self.reference = even_split(self.world, forecast, forecast)
        each = min(self.options.explorations, (observation.budget.left - AGENTS) // AGENTS)
        if each <= 0:
            return
        tries = each * AGENTS
        seen = tensor(self.seen).expand(each, -1)
        with torch.no_grad():
            sampled = self.learners.actor.sample(seen, self.learners.generator)[0]
        actions = sampled.flatten(0, 1).numpy()
        many = repeat(forecast, tries)
        after, outcome = observation.simulate(decode(self.world, actions, many))
        self.replay.within.add(
            np.repeat(self.seen, tries, axis=0),
            actions,
            rewards(outcome, repeat(self.reference, tries), self.options.drop_penalty),
            observe(self.world, after, many),
            self.options.tried_priority,
        )
        self._learn(self.options.exploration_updates)

    def _learn(self, updates: int) -> None:
        if not self.replay.across.size:
            return
        for _ in range(updates):
            batch, drawn = self.replay.draw(
                self.options.online_batch_size, self.options.across_share, self.rng
            )
            self.replay.reprioritise(drawn, self.learners.update(batch))
