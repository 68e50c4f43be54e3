"""NSGA-II over plans, run afresh each epoch on the forecast.

Source: Deb et al. (2002), A fast and elitist multiobjective genetic algorithm: NSGA-II.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from marlin.fleet.contract import Plan
from marlin.fleet.power_down import sized_plan
from marlin.fleet.world import World
from marlin.schedulers.base import Observation, Scheduler


@dataclass
class Nsga2(Scheduler):
    """A population of plans, non-dominated sorting, the compromise by weights is carried out.

    Genes of a plan, all in [0, 1]: a preference for each site and model, how much distance
    counts, and the target utilisation. The population's best starts the next epoch's search.
    """

    name: str = "nsga2"
    population: int = Field(16, ge=4, le=1000)
    crossover_eta: float = Field(15.0, gt=0)
    mutation_eta: float = Field(20.0, gt=0)
    objective_weights: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25)

    def reset(self, world: World, seed: int, variant: str = "") -> None:
        """See `Scheduler.reset`."""
        self._rng = np.random.default_rng([seed, 2])
        self._start: np.ndarray | None = None

    def plan(self, observation: Observation) -> Plan:
        """See `Scheduler.plan`."""
        genes, objectives = self._search(observation)
        best = int(
            np.argmin(np.log(np.clip(objectives, 1e-9, None)) @ np.asarray(self.objective_weights))
        )
        self._start = genes
        return decode(observation, genes[best : best + 1])

    def _search(self, observation: Observation) -> tuple[np.ndarray, np.ndarray]:
        """Last population and its objectives, [P, genes] and [P, 4]."""
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.optimize import minimize

        world = observation.world
        size = len(world.sites) * len(world.models) + 2
        start = self._start
        if start is None:
            start = self._rng.random((self.population, size))
            start[0] = 0.5

        class Planning(Problem):
            def _evaluate(self, x: np.ndarray, out: dict, *args: object, **kw: object) -> None:
                _, outcome = observation.simulate(decode(observation, x))
                out["F"] = np.stack(outcome.objectives(), axis=-1)

        algorithm = NSGA2(
            pop_size=self.population,
            sampling=start,
            crossover=SBX(prob=0.9, eta=self.crossover_eta),
            mutation=PM(eta=self.mutation_eta),
            eliminate_duplicates=False,
        )
        generations = observation.budget.calls_per_decision // self.population
        result = minimize(
            Planning(n_var=size, n_obj=4, xl=0.0, xu=1.0),
            algorithm,
            ("n_gen", max(generations, 1)),
            seed=int(self._rng.integers(2**31)),
        )
        return result.pop.get("X"), result.pop.get("F")


def decode(observation: Observation, genes: np.ndarray) -> Plan:
    """Plans [P, ...] from genes [P, D * M + 2]."""
    world = observation.world
    population, sites, models = len(genes), len(world.sites), len(world.models)
    taste = 10.0 * genes[:, : sites * models].reshape(population, 1, models, 1, sites)
    distance = 40.0 * genes[:, -2].reshape(-1, 1, 1, 1, 1) * world.constants.rtt_s[:, None, None, :]
    logits = taste - distance
    routing = np.exp(logits - logits.max(axis=-1, keepdims=True))
    routing /= routing.sum(axis=-1, keepdims=True)
    shape = (population, *world.class_shape, sites)
    routing = np.broadcast_to(routing, shape)
    target = 0.3 + 0.55 * genes[:, -1:]
    arrivals = np.broadcast_to(observation.forecast.arrival_rate_per_s, shape[:-1])
    return sized_plan(world, routing, arrivals, target, observation.forecast.available)
