"""MARLIN at work: one world, one epoch at a time, on forecasts, learning as it goes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from marlin.fleet.contract import Inputs, Outcome, Plan, repeat
from marlin.fleet.world import World
from marlin.games.negotiation import Bargain, starting_capital
from marlin.schedulers.base import Observation
from marlin.schedulers.learning.networks import tensor
from marlin.schedulers.marlin.agents import AGENTS
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
from marlin.schedulers.marlin.replay import tried_scale
from marlin.schedulers.schemes import SCHEMES

if TYPE_CHECKING:
    from marlin.schedulers.marlin import Marlin


class Online:
    """State of the method between two decisions of a day.

    All schemes of the roster are negotiated, because capital is paid by how the agents fare under
    all of them; that of `variant` is carried out, the others are simulated on the forecast.
    """

    def __init__(
        self, options: Marlin, world: World, seed: int, variant: str,
        trained: dict[str, np.ndarray],
    ) -> None:  # fmt: skip
        self.options, self.world = options, world
        self.scheme = list(SCHEMES).index(variant)
        self.rng = np.random.default_rng([seed, 3, self.scheme])
        self.learners = make_learners(options, world, seed)
        if trained:
            self.learners.unpack(trained)
        self.learners.slow_down(options.online_pace)
        self.replay = make_replay(options, world)
        self.capital = starting_capital(ROSTER, options.rules)[None]
        self.pending: tuple[np.ndarray, ...] | None = None

    def plan(self, observation: Observation) -> Plan:
        """Try and learn, propose, agree, pay the agents."""
        forecast, options = observation.forecast, self.options
        self.seen = observe(self.world, forecast)
        if self.pending is not None:
            self.replay.across.add(*self.pending, self.seen, options.across_priority)
        self._explore(observation)
        self.proposals, self.bargain = self._negotiated(forecast)
        actions = self.bargain.plan.numpy()
        plans = decode(
            options, self.world, actions, repeat(forecast, len(ROSTER)),
            repeat(observation.state, len(ROSTER)),
        )  # fmt: skip
        if options.capital and observation.budget.left >= len(ROSTER):
            outcome = observation.simulate(plans)[1]
            rows = np.repeat(self.seen, len(ROSTER), axis=0)
            lost = envy(self.learners, rows, self.proposals, self.bargain.plan)
            self.capital = paid_capital(self.learners, self.world, self.capital, outcome, lost)
        mine = slice(self.scheme, self.scheme + 1)
        self.action = actions[mine]
        self.carried_out = Plan(plans.routing[mine], plans.power[mine])
        return self.carried_out

    def _negotiated(self, forecast: Inputs) -> tuple[Tensor, Bargain]:
        """Proposals [S, N, A], the same for every scheme, and the bargains of all schemes."""
        proposals = propose(self.learners, self.world, self.seen, forecast, 0.0, explore=False)
        proposals = proposals.expand(len(ROSTER), -1, -1)
        rows = np.repeat(self.seen, len(ROSTER), axis=0)
        capital = self.capital.expand(len(ROSTER), -1)
        return proposals, agree(self.learners, rows, proposals, capital, ROSTER)

    def observe(self, outcome: Outcome) -> None:
        """Learn from what was carried out."""
        reward = pay(self.learners, self.world, self.carried_out, outcome)
        take_in(self.learners, self.world, outcome)
        self.pending = (self.seen, self.action, reward)
        learn(self.learners, self.replay, self.options.online_updates, self.rng)

    def _explore(self, observation: Observation) -> None:
        """Rounds of one simulated try an agent, all agents learning after each."""
        options, world = self.options, self.world
        spare = (observation.budget.left - len(ROSTER)) // AGENTS
        forecast = repeat(observation.forecast, AGENTS)
        state = repeat(observation.state, AGENTS)
        judged = replace(observation, state=judged_from(options, world, observation.state))
        for _ in range(max(min(options.explorations, spare), 0)):
            actions = self.learners.propose(tensor(self.seen), explore=True)[0].numpy()
            plans = decode(options, world, actions, forecast, state)
            outcome = judged.simulate(plans)[1]
            rows = np.repeat(self.seen, AGENTS, axis=0)
            self.replay.within.add(
                rows,
                actions,
                pay(self.learners, world, plans, outcome),
                rows,  # what comes next is not known yet
                tried_scale(AGENTS, 1.0, options.hindsight_priority * options.hindsight),
            )
            learn(self.learners, self.replay, options.exploration_updates, self.rng)
