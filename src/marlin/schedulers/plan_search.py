"""What every search over plans shares: trials on the forecast, where it starts, what it chooses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from marlin.fleet.contract import OBJECTIVES, Outcome, Plan
from marlin.fleet.terms import TINY
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler
from marlin.schedulers.encoding import decode, even_split, gene_count, greedy_plans
from marlin.schedulers.schemes import SCHEMES, scheme

LEAST_SERVED = 0.05  # share of arrivals that costs are divided by at least


@dataclass
class Trials:
    """Plans that were simulated for one epoch: their genes and what they are expected to cost."""

    observation: Observation
    decode: Callable[[Observation, np.ndarray], Plan]
    genes: list[np.ndarray] = field(default_factory=list)  # [P, N] each
    costs: list[np.ndarray] = field(default_factory=list)  # [P, 4] each
    sizes: list[np.ndarray] = field(default_factory=list)  # [P, 4] each, never negative

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Objectives [P, 4] of genes [P, N] if the forecast comes true; counts P calls."""
        _, outcome = self.observation.simulate(self.decode(self.observation, genes))
        costs = objectives(outcome)
        self.genes.append(genes)
        self.costs.append(costs)
        # Prices may be negative, so the size of the energy cost is the sum of its magnitudes.
        spent = np.abs(outcome.site_cost_usd).sum(axis=1)
        self.sizes.append(np.column_stack([costs[:, :3], spent]))
        return costs

    def ranked(self, weights: np.ndarray) -> np.ndarray:
        """Genes of all trials [P, N], least sum of objectives by `weights` [4] first."""
        order = np.argsort(np.concatenate(self.costs) @ weights, kind="stable")
        return np.concatenate(self.genes)[order]


def objectives(outcome: Outcome) -> np.ndarray:
    """Objectives [P, 4]; what is spent counts per request served, so that none is turned away."""
    served = 1.0 - (outcome.dropped + outcome.waiting) / np.clip(outcome.arrived, TINY, None)
    costs = np.stack(outcome.objectives(), axis=-1)
    costs[:, 1:] /= np.clip(served, LEAST_SERVED, 1.0)[:, None]
    return costs


@checked
class PlanSearch(Scheduler):
    """Searches plans on the forecast each epoch and carries out the best trial by the weights.

    Objectives are weighed relative to what the even split was expected to cost in the day's first
    epoch, when the fleet is warm. In later epochs it may have to wake nodes, and a cold start that
    makes everything else look fast would weigh next to nothing.
    """

    population: int = Field(20, ge=13, le=1000, description="12 known plans and what was best")

    def variants(self) -> tuple[str, ...]:
        """Balanced first, then one an objective: all search alike and differ in what they pick."""
        return tuple(SCHEMES)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        self._rng = np.random.default_rng([seed, 2])
        self._weights = scheme(variant)
        self._scale: np.ndarray | None = None
        self._last: np.ndarray | None = None

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        trials = Trials(observation, self.decode)
        population = self.search(trials, self.start(observation))
        best = trials.ranked(self._weights / self.scale(trials))[:1]
        self._last = np.concatenate([best, population])
        return self.decode(observation, best)

    def start(self, observation: Observation) -> np.ndarray:
        """Genes [P, N] to start from: the even split first, greedy plans, what was best before."""
        world = observation.world
        known = np.concatenate([even_split(world), greedy_plans(observation)])
        rest = self.newcomers(world) if self._last is None else self._last
        return np.concatenate([known, rest])[: self.population]

    def newcomers(self, world: World) -> np.ndarray:
        """Genes [P, N] that fill up the day's first start set: random ones."""
        return self._rng.random((self.population, gene_count(world)))

    def scale(self, trials: Trials) -> np.ndarray:
        """Size [4] of each objective: that of the day's first trial, the even split."""
        if self._scale is None:
            self._scale = trials.sizes[0][0]
        return self._scale

    @abstractmethod
    def search(self, trials: Trials, start: np.ndarray) -> np.ndarray:
        """Try plans from the start set [P, N] on; returns what the next epoch starts with."""

    def decode(self, observation: Observation, genes: np.ndarray) -> Plan:
        """Plans from genes; see `encoding.decode`."""
        return decode(observation, genes)


def evolve(
    algorithm: Any, trials: Trials, start: np.ndarray, seed: int, generations: int | None = None
) -> np.ndarray:
    """Genes of the last population [P, N] of a pymoo algorithm that samples `start` [P, N].

    Every generation costs P calls; the budget ends the search if `generations` do not.
    """
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    class Planning(Problem):
        def _evaluate(self, x: np.ndarray, out: dict, *args: object, **kw: object) -> None:
            out["F"] = trials(x)

    allowed = max(trials.observation.budget.left // len(start), 1)
    stop = ("n_gen", min(generations or allowed, allowed))
    problem = Planning(n_var=start.shape[1], n_obj=len(OBJECTIVES), xl=0.0, xu=1.0)
    return minimize(problem, algorithm, stop, seed=seed).pop.get("X")
