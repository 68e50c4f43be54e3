"""The method at work: one world, one epoch at a time, on forecasts, with a reserve and accounts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from marlin.fleet.contract import Inputs, Outcome, Plan, convert, row
from marlin.fleet.terms import TINY
from marlin.schedulers.base import Observation
from marlin.schedulers.learning.rewards import even_split, metric_table
from marlin.schedulers.marlin_nash.bargaining import Agreement, supporting_weights
from marlin.schedulers.marlin_nash.deciding import Decision, decide
from marlin.schedulers.marlin_nash.fleets import as_tensors
from marlin.schedulers.marlin_nash.pools import Pools, make_pools, tensor
from marlin.schedulers.marlin_nash.practice import heard_weights
from marlin.schedulers.marlin_nash.tokens import make_tokens
from marlin.schedulers.marlin_nash.training import DEMAND_ERROR, make_policy, unpack
from marlin.schedulers.marlin_nash.whole import ROUNDING
from marlin.schedulers.schemes import scheme

if TYPE_CHECKING:
    from marlin.schedulers.marlin_nash import MarlinNash

MOST_PAID = 2.0  # of the even split's cost: what no weights could have spared is left out
ERROR_KEPT = 0.9  # of squared errors of the forecast, from epoch to epoch


class Online:
    """State of the method between two decisions of a day."""

    def __init__(
        self, options: MarlinNash, seed: int, variant: str, learned: dict[str, np.ndarray]
    ) -> None:
        torch.set_num_threads(1)
        self.options, self.variant = options, variant
        self.policy = make_policy(options, seed)
        self.agreement = unpack(self.policy, learned) if learned else None
        self.weights = scheme(variant)
        if self.agreement and self._bargains:
            self.weights = self.agreement.weights
        self.accounts: _Accounts | None = None
        self.reserve = (
            _Reserve(options.caution, float(learned[DEMAND_ERROR]))
            if learned
            else _Reserve(0.0, 1.0)
        )
        self._pools: Pools | None = None

    @property
    def _bargains(self) -> bool:
        return self.variant == "" and self.options.bargaining

    @property
    def _keeps_accounts(self) -> bool:
        """Where nothing is served without agreement, weights do not depend on what was gained."""
        depends = self.options.otherwise != "nothing"
        return self._bargains and depends and self.options.memory_days > 0.0

    def plan(self, observation: Observation) -> Plan:
        """The plan on which the agents agree, or that of one of them."""
        world, epochs_per_day = observation.world, observation.world.epochs_per_day
        if self._pools is None:
            self._pools = make_pools(world, _mix(observation.forecast))
            if self.agreement and self._keeps_accounts:
                memory = self.options.memory_days * epochs_per_day
                self.accounts = _Accounts(self.agreement, memory)
        if self.accounts:
            self.accounts.expect(observation)
            self.weights = self.accounts.weights(self.options.terms.powers)
        self.reserve.expect(observation)
        plan = convert(self.decision(observation).plan, lambda values: values.numpy().astype(float))
        can_run = world.constants.nodes * observation.forecast.available[0]
        return in_double(plan, can_run)

    def decision(self, observation: Observation) -> Decision:
        """The plan as the policy gives it, and how it came about."""
        if self._pools is None:
            raise RuntimeError("plan comes first: it reads the fleet")
        weights = heard_weights(tensor(self.weights)[None], self.options.least_weight)
        ahead = observation.outlook(2) if self.options.lookahead else None
        later = row(ahead, slice(1, 2)) if ahead else observation.forecast
        state = convert(observation.state, tensor)
        with torch.no_grad():
            tokens = make_tokens(
                self._pools, state, as_tensors(observation.forecast), as_tensors(later), weights
            )
            asked = self.reserve.factor
            tokens = replace(tokens, work=asked * tokens.work, later_work=asked * tokens.later_work)
            answer = self.policy(tokens, self._pools.has_nodes)
            return decide(self._pools, tokens, answer, self.options.market)

    def observe(self, outcome: Outcome) -> None:
        """Enter what was gained, and how far demand was from its forecast."""
        self.reserve.enter(outcome)
        if self.accounts:
            self.accounts.enter(outcome)


def in_double(plan: Plan, can_run: np.ndarray) -> Plan:
    """The plan in double precision: shares sum to one, and of the nodes [D, G] whole ones run."""
    routing = plan.routing / plan.routing.sum(axis=-1, keepdims=True)
    count = plan.power * can_run
    count = np.where(np.abs(count - count.round()) < ROUNDING, count.round(), count)
    return Plan(routing, np.clip(count / np.where(can_run > 0.0, can_run, 1.0), 0.0, 1.0))


class _Reserve:
    """Room for demand beyond its forecast, while it errs more than it did in training.

    What the policy has seen it leaves room for itself.
    """

    def __init__(self, caution: float, usual: float) -> None:
        self.caution, self.usual = caution, usual
        self._square = usual**2  # running mean of squared relative errors
        self._expected = 0.0  # requests

    @property
    def factor(self) -> float:
        """Demand to plan for, over its forecast."""
        return 1.0 + self.caution * max(0.0, self._square**0.5 - self.usual)

    def expect(self, observation: Observation) -> None:
        """Note what is forecast."""
        demand_per_s = float(observation.forecast.arrival_rate_per_s.sum())
        self._expected = demand_per_s * observation.world.epoch_s

    def enter(self, outcome: Outcome) -> None:
        """The epoch is over: what came?"""
        error = float(outcome.arrived[0]) / max(self._expected, TINY) - 1.0
        self._square = ERROR_KEPT * self._square + (1.0 - ERROR_KEPT) * error**2


class _Accounts:
    """What each agent pays beside the even split, as running means over `memory` epochs."""

    def __init__(self, agreement: Agreement, memory: float) -> None:
        self.kept = 1.0 - 1.0 / memory
        self.otherwise = agreement.otherwise
        self.even = np.ones_like(agreement.costs)  # running mean cost of the even split
        self.paid = agreement.costs.copy()  # running mean of what is paid
        self._expected: np.ndarray | None = None
        self._scale: np.ndarray | None = None

    def weights(self, powers: np.ndarray) -> np.ndarray:
        """Weights [J] that support the bargaining solution at what was paid."""
        return supporting_weights(self.paid / self.even, self.otherwise, powers)

    def expect(self, observation: Observation) -> None:
        """Look at what the even split would cost a warm fleet in the coming epoch: one call."""
        observation.budget.take(1)
        forecast = observation.forecast
        self._expected = metric_table(even_split(observation.world, forecast, forecast))[0]
        if self._scale is None:
            self._scale = np.abs(self._expected)

    def enter(self, outcome: Outcome) -> None:
        """The epoch is over: what was paid?"""
        if self._expected is None or self._scale is None:
            raise RuntimeError("an epoch is planned before it is observed")
        part = (1.0 - self.kept) / self._scale
        paid = np.minimum(metric_table(outcome)[0], MOST_PAID * np.abs(self._expected))
        self.even = self.kept * self.even + part * self._expected
        self.paid = self.kept * self.paid + part * paid


def _mix(forecast: Inputs) -> np.ndarray:
    """Shares of requests by model and service, [M, S]; even ones without demand."""
    demand = forecast.arrival_rate_per_s.sum(axis=(0, 1)) + 1e-9
    return demand / demand.sum()
